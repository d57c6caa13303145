"""Can the model name the emotion of a text, and can a head read it off? (Paper A, Table 2.)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from emowatch.bank.card import LayerMetrics
from emowatch.studies.asking import ANSWER_TOKENS, Verdict, ask
from emowatch.studies.conditions import NotProbed, Opener, Probed, probe_conditions
from emowatch.studies.findings import Cell, Figure, Findings, Table, estimate_of
from emowatch.studies.published import PAPER_A, TABLE_2, published_for
from emowatch.studies.setting import Setting
from emowatch.studies.shares import Agreement, agreement
from emowatch.studies.shuffling import SHUFFLES
from emowatch.studies.speaking import reply_limit
from emowatch.workshop.building.prompting import PromptTemplate
from emowatch.workshop.metrics import Estimate

BLUE, GREY, RED = "#0072B2", "#444444", "#D55E00"
NULL_MARK = {"marker": "|", "linestyle": "", "color": GREY, "markersize": 18, "markeredgewidth": 2}
COLUMNS = "condition", "layer", "n", "accuracy", "null", "coverage", "published"
"""The last is there for the paper's models alone."""
FLOORS = ("TF-IDF + logistic regression", "chance")
"""The last rows of the table."""


def study_classification(
    setting: Setting,
    question: PromptTemplate,
    *,
    base: Opener | None = None,
    most: int = ANSWER_TOKENS,
    thinks: bool = False,
) -> Findings:
    """Compare a model's own answers with heads on its states.

    Args:
        setting: model and texts; without a chat template the row of templated text is missing.
        question: how the model is asked.
        base: opens the model before instruction tuning, for the row `pre-trained`.
        most: longest answer in tokens.
        thinks: whether a model that can think before it answers does so.

    Raises:
        EmowatchError: as reading states and writing replies do.
    """
    test = setting.test
    verdicts = ask(
        setting.loaded,
        [example.text for example in test.examples],
        test.labels,
        question,
        setting.work / "answers",
        most=most,
        thinks=thinks,
        progress=partial(setting.report, "asking the model"),
    )
    agreed = agreement(
        [example.label for example in test.examples],
        [verdict.label for verdict in verdicts],
        test.group_numbers,
        len(test.labels),
        seed=setting.seed,
    )
    conditions = probe_conditions(setting, base)
    probed = [one for one in conditions if isinstance(one, Probed)]
    theirs = published_for(setting.loaded.name, TABLE_2)
    table = _conditions(agreed, conditions, theirs or {})
    return Findings(
        study="classification",
        title="Answers and probes",
        source=f"{PAPER_A}, Table 2",
        model=setting.loaded.name,
        sizes={"training texts": len(setting.train), "test texts": len(test)},
        settings=setting.described
        | {"longest answer": reply_limit(setting.loaded, most), "thinking": thinks},
        tables=(table, _answers(verdicts), _by_label(test.labels, agreed)),
        figures=(_figure(table, setting.loaded.name, agreed.n),),
        notes=tuple(_notes(setting, probed, agreed, known=theirs is not None)),
        numbers=_numbers(agreed, probed),
    )


def _conditions(
    agreed: Agreement, conditions: Sequence[Probed | NotProbed], theirs: Mapping[str, float]
) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            "zero-shot, answered",
            None,
            round(agreed.coverage.value * agreed.n),
            agreed.accuracy_of_covered,
            agreed.null_of_covered,
            agreed.coverage,
            theirs.get("zero-shot"),
        ),
        ("zero-shot, all", None, agreed.n, agreed.accuracy, agreed.null, None, None),
    ]
    for one in conditions:
        rows += _rows(one, theirs.get(one.condition))
    chance, floor = _floors([one for one in conditions if isinstance(one, Probed)])
    rows += [
        (FLOORS[0], None, agreed.n, floor, None, None, None),
        (FLOORS[1], None, None, chance, None, None, None),
    ]
    note = (
        "Null: of zero-shot its answers permuted over the texts, of probes heads fitted to "
        f"shuffled labels, {SHUFFLES} orders; the mean, and where 95 % lie. The primary layer was "
        "chosen on validation data."
    )
    if "coverage" in theirs:
        note += f" Published coverage: {theirs['coverage']:.3f}."
    return Table(
        name="conditions",
        title="Accuracy on texts in classes of equal size",
        columns=COLUMNS if theirs else COLUMNS[:-1],
        rows=tuple(row if theirs else row[:-1] for row in rows),
        note=note,
    )


def _rows(one: Probed | NotProbed, published: float | None) -> list[tuple[Cell, ...]]:
    """Give the last layer, beside which the published figure stands, and the primary one."""
    if isinstance(one, NotProbed):
        name = f"{one.condition} (not measured: {one.why})"
        return [(name, None, None, None, None, None, published)]

    def row(which: str, found: LayerMetrics, beside: float | None) -> tuple[Cell, ...]:
        name, null = f"{one.condition}, {which}", one.nulls.get(found.layer)
        return name, found.layer, one.evaluation.n, _accuracy(found), null, None, beside

    if one.primary.layer == one.last.layer:
        return [row("last and primary layer", one.last, published)]
    return [row("last layer", one.last, published), row("primary layer", one.primary, None)]


def _accuracy(found: LayerMetrics) -> Estimate:
    return Estimate(found.balanced_accuracy, *found.balanced_accuracy_interval)


def _floors(probed: Sequence[Probed]) -> tuple[float, Cell]:
    """Give chance and the text baseline, which are the same for all conditions."""
    found = probed[0].evaluation  # that of raw text is always there
    floor = estimate_of(found.tfidf_balanced_accuracy, found.tfidf_balanced_accuracy_interval)
    return found.chance, floor


def _answers(verdicts: Sequence[Verdict]) -> Table:
    counts = Counter(verdict.why or "a known label" for verdict in verdicts)
    return Table(
        name="answers",
        title="What the model answered",
        columns=("answer", "texts", "share"),
        rows=tuple((why, n, n / len(verdicts)) for why, n in counts.most_common()),
        note="Only an answer that is one JSON object with a known label counts as covered.",
    )


def _by_label(labels: Sequence[str], agreed: Agreement) -> Table:
    columns = agreed.named, agreed.recalls, agreed.recall_nulls, agreed.precisions
    return Table(
        name="labels",
        title="Zero-shot by label, of all texts",
        columns=("label", "named", "recall", "recall, null", "precision"),
        rows=tuple(zip(labels, *columns, strict=True)),
        note="Named: how many answers name the label. A text without an answer is a miss.",
    )


def _notes(
    setting: Setting, probed: Sequence[Probed], agreed: Agreement, *, known: bool
) -> list[str]:
    notes = [
        "Probes have learned from the training texts, and zero-shot answers have not: a gap "
        "between them is also one of labels that these texts teach.",
        "The paper does not say which layer its probes read; its Table 3 agrees best with the last "
        "one. Its caption says that raw beats pre-trained in all models, and its rows say the "
        "opposite of the three LLaMAs.",
    ]
    if agreed.coverage.value < 0.5:
        notes.insert(
            0,
            f"The model gave an answer that can be read to {agreed.coverage.value:.1%} of the "
            "texts: its zero-shot accuracy says next to nothing of what it knows.",
        )
    for one in probed:
        if one.last.layer < one.card.n_layers:
            notes.append(
                f"The last layer that was read of {one.condition} is {one.last.layer} of "
                f"{one.card.n_layers}."
            )
        if one.evaluation.note:
            notes.append(f"{one.condition}: {one.evaluation.note}")
    if not setting.loaded.tokenizer.chat_template:
        notes.append("Without a chat template the model was asked in plain text.")
    if not known:
        notes.append(f"The paper's Table 2 has no figures of {setting.loaded.name!r}.")
    return notes


def _numbers(agreed: Agreement, probed: Sequence[Probed]) -> dict[str, Cell]:
    chance, floor = _floors(probed)
    found: dict[str, Cell] = {
        "chance": chance,
        "TF-IDF": floor,
        "coverage": agreed.coverage,
        "zero-shot": agreed.accuracy_of_covered,
        "zero-shot, all": agreed.accuracy,
    }
    for one in probed:
        found[f"{one.condition}, last"] = _accuracy(one.last)
        found[f"{one.condition}, primary"] = _accuracy(one.primary)
    return found


def _figure(table: Table, model: str, n: int) -> Figure:
    return Figure(
        name="bars",
        caption=f"Accuracy of {model}'s answers and of heads on its states (n = {n}); lines are "
        "95 % intervals, grey marks are nulls, crosses the published figures.",
        draw=partial(_draw, table=table),
        data=table,
    )


def _draw(canvas: Any, *, table: Table) -> None:
    axes = canvas.subplots()
    rows: list[dict[str, Any]] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    floors = {row["condition"]: row["accuracy"] for row in rows if row["condition"] in FLOORS}
    shown = [
        row
        for row in rows
        if row["condition"] not in FLOORS and isinstance(row["accuracy"], Estimate)
    ]
    for place, row in enumerate(shown):
        value = row["accuracy"]
        ends = [[value.value - value.low], [value.high - value.value]]
        axes.barh(place, value.value, color=BLUE, alpha=0.45)
        axes.errorbar(value.value, place, xerr=ends, color="black", capsize=3)
        if isinstance(row["null"], Estimate):
            axes.plot(row["null"].value, place, label="null", **NULL_MARK)
        if row.get("published") is not None:
            axes.plot(row["published"], place, "x", color="black", label="published")
    for (name, value), line in zip(floors.items(), ("--", ":"), strict=True):
        if value is not None:
            at = value.value if isinstance(value, Estimate) else value
            axes.axvline(at, color=RED if line == "--" else "black", linestyle=line, label=name)
    axes.set_yticks(range(len(shown)), [row["condition"] for row in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy", xlim=(0, 1))
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))  # one entry for the marks of all bars
    axes.legend(once.values(), once.keys(), frameon=False, fontsize=8)
