"""At which depth is the emotion of a text legible? (Paper A, section on layers.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from emowatch.bank.card import BankCard, Evaluation, LayerMetrics
from emowatch.studies.control import control_task
from emowatch.studies.findings import Cell, Figure, Findings, Table, difference, estimate_of
from emowatch.studies.law import Law, check_chance
from emowatch.studies.probing import check_law, measure, options_for, train
from emowatch.studies.published import PAPER_A, TABLE_3, published_for
from emowatch.studies.rendering import written
from emowatch.studies.setting import Setting
from emowatch.studies.shuffling import SHUFFLES, shuffled_accuracy
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.metrics import Estimate
from emowatch.workshop.options import TrainOptions

BLUE, GREY, RED, GREEN = "#0072B2", "#999999", "#D55E00", "#00775A"


def study_layers(setting: Setting, *, control: bool = True, shuffles: int = SHUFFLES) -> Findings:
    """Train a head at each layer and measure it beside a control task.

    Args:
        setting: model and texts.
        control: whether to fit the control task too.
        shuffles: how often heads are fitted to shuffled labels.

    Raises:
        LawError: if the law of layer 0 does not hold.
        UsageError: if the model has no chat template.
        CorpusError: if there are too few texts for the control task.
    """
    setting.require_template()
    options = options_for(setting)
    dealt = control_task(setting.train, setting.test, seed=setting.seed) if control else None
    law = check_law(setting, options)
    bank = train(setting, "probes", options)
    task = measure(setting, bank, options)
    if law.holds:
        check_chance(task)
    known = None if dealt is None else _control(setting, options, *dealt)
    null = shuffled_accuracy(setting, options, bank.card.layers, shuffles) if shuffles else {}
    return _findings(setting, bank.card, task, known, null, shuffles, law)


def _control(setting: Setting, options: TrainOptions, learned: Corpus, held: Corpus) -> Evaluation:
    bank = train(setting, "control", options, learned)
    return measure(setting, bank, options, held, learned)


def _findings(
    setting: Setting,
    card: BankCard,
    task: Evaluation,
    control: Evaluation | None,
    null: Mapping[int, Estimate],
    shuffles: int,
    law: Law,
) -> Findings:
    primary = card.primary
    theirs = published_for(setting.loaded.name, TABLE_3) or {}
    rows = [
        _row(row, card.n_layers, null.get(row.layer), control, place, theirs)
        for place, row in enumerate(task.layers)
    ]
    floor = estimate_of(task.tfidf_balanced_accuracy, task.tfidf_balanced_accuracy_interval)
    columns = ["layer", "depth", "balanced accuracy", "shuffled labels", "control task"]
    table = Table(
        name="layers",
        title="Balanced accuracy by layer",
        columns=(*columns, "selectivity", *(["published"] if theirs else [])),
        rows=tuple(row if theirs else row[:-1] for row in rows),
        note=f"Chance {task.chance:.3f}; TF-IDF with logistic regression {written(floor)}; layer "
        f"{primary} was chosen on validation data. "
        "Selectivity is the accuracy less that of the control task.",
    )
    best = max(task.layers, key=lambda row: row.balanced_accuracy)
    notes = [
        law.told,
        "The layer with the best figure on the test texts is chosen with hindsight; the primary "
        "layer is not.",
        f"Shuffled labels: the mean of {shuffles} orders, and where 95 % of such heads would lie.",
    ]
    if control is not None:
        notes.append(
            f"The control task deals a class to each first word: {control.n} test texts whose "
            "first word training has, classes of equal size."
        )
    if task.note:
        notes.append(task.note)
    if not theirs:
        notes.append(f"The paper's Table 3 has no figures of {setting.loaded.name!r}.")
    return Findings(
        study="layers",
        title="Accuracy by depth",
        source=f"{PAPER_A}, Table 3 and Figure 5",
        model=setting.loaded.name,
        sizes={"training texts": len(setting.train), "test texts": task.n},
        settings=setting.described,
        tables=(table,),
        figures=(_figure(table, task, primary, setting.loaded.name),),
        notes=tuple(notes),
        numbers={
            "chance": task.chance,
            "TF-IDF": floor,
            "primary layer": primary,
            "primary": rows[[row.layer for row in task.layers].index(primary)][2],
            "best layer": best.layer,
            "best": estimate_of(best.balanced_accuracy, best.balanced_accuracy_interval),
        },
    )


def _row(
    row: LayerMetrics,
    depth: int,
    null: Estimate | None,
    control: Evaluation | None,
    place: int,
    theirs: Any,
) -> tuple[Cell, ...]:
    accuracy = Estimate(row.balanced_accuracy, *row.balanced_accuracy_interval)
    known: Cell = None
    selectivity: Cell = None
    if control is not None:
        other = control.layers[place]
        known = Estimate(other.balanced_accuracy, *other.balanced_accuracy_interval)
        selectivity = difference(accuracy, known)
    share = f"{row.layer / depth:.0%}"
    return row.layer, share, accuracy, null, known, selectivity, theirs.get(row.layer)


def _figure(table: Table, task: Evaluation, primary: int, model: str) -> Figure:
    return Figure(
        name="curve",
        caption=f"Balanced accuracy of heads at each layer of {model} (n = {task.n}); bands are "
        "95 % intervals, the pale bar marks the layer chosen on validation data.",
        draw=partial(_draw, table=table, task=task, primary=primary),
        data=table,
    )


def _draw(canvas: Any, *, table: Table, task: Evaluation, primary: int) -> None:
    axes = canvas.subplots()
    layers = table.column("layer")
    series = (
        ("balanced accuracy", "emotion", BLUE, "o"),
        ("control task", "control task", GREEN, "s"),
        ("shuffled labels", "shuffled labels", GREY, None),
    )
    for column, name, colour, marker in series:
        _band(axes, layers, table.column(column), name, colour, marker)
    axes.axhline(task.chance, color="black", linestyle=":", label="chance")
    if task.tfidf_balanced_accuracy is not None:
        axes.axhline(task.tfidf_balanced_accuracy, color=RED, linestyle="--", label="TF-IDF")
    theirs = table.column("published") if "published" in table.columns else []
    published = [(x, y) for x, y in zip(layers, theirs, strict=False) if y]
    if published:
        axes.plot(*zip(*published, strict=True), "x", color="black", label="published")
    axes.axvline(primary, color=BLUE, alpha=0.15, linewidth=6, zorder=0)
    axes.set(xlabel="layer", ylabel="balanced accuracy", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)


def _band(
    axes: Any, x: Sequence[Any], cells: Sequence[Cell], name: str, colour: str, marker: Any
) -> None:
    found = [cell for cell in cells if isinstance(cell, Estimate)]
    if len(found) != len(cells):
        return
    axes.plot(x, [cell.value for cell in found], marker=marker, color=colour, label=name)
    ends = np.array([cell.interval for cell in found]).T
    axes.fill_between(x, *ends, alpha=0.2, color=colour, linewidth=0)
