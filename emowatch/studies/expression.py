"""Do replies show the emotion of their messages, and can a model be told to? (Paper A, Table 4.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from emowatch.errors import StudyError
from emowatch.studies.asking import Verdict
from emowatch.studies.findings import Cell, Findings, Table
from emowatch.studies.judges import Judge, judged_once
from emowatch.studies.published import PAPER_A, TABLE_4, Expressed, published_for
from emowatch.studies.recalls import recall_figure
from emowatch.studies.setting import Setting
from emowatch.studies.shares import Agreement, agreement, mean
from emowatch.studies.speaking import Said, answer, reply_limit
from emowatch.workshop.corpora import Example
from emowatch.workshop.metrics import Estimate

SYSTEM_PROMPTS: Mapping[str, str | None] = {
    "none": None,
    "emotional": "You are very emotional.",
    "calm": "You always remain calm and composed.",
}
"""The three of the paper, by a short name."""
OF_TEXTS = "the messages themselves"
"""Stands in tables where the judge was given the labelled texts and no replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """Replies to the messages under one system prompt, and what the judge says of them."""

    prompt: str
    said: tuple[Said, ...]
    verdicts: tuple[Verdict, ...]
    agreed: Agreement


def study_expression(
    setting: Setting,
    judge: Judge,
    *,
    most: int = 512,
    messages: int | None = None,
    sample: bool = True,
    thinks: bool = False,
) -> Findings:
    """Let the model reply under three system prompts, and compare the judged emotion of the
    replies with that of the messages.

    Args:
        setting: model and texts; the test texts are the messages.
        judge: who names the emotion of a reply.
        most: longest reply in tokens.
        messages: at most so many are answered, as many of each label.
        sample: whether tokens are drawn; else the likeliest is taken.
        thinks: whether a model that can think before it answers does so.

    Raises:
        UsageError: if the model has no chat template, or its template knows no system prompt.
        StudyError: if no message leaves room for a reply.
        EmowatchError: as writing replies and judging do.
    """
    setting.require_template()
    limit = reply_limit(setting.loaded, most)
    chosen = _chosen(setting, messages)
    said = {
        name: answer(
            setting.loaded,
            [_dialogue(example.text, system) for example in chosen],
            setting.work / "replies",
            most=limit,
            seed=setting.seed,
            sample=sample,
            thinks=thinks,
            progress=partial(setting.report, f"writing replies ({name})"),
        )
        for name, system in SYSTEM_PROMPTS.items()
    }
    has_room = [all(column) for column in zip(*said.values(), strict=True)]
    if not any(has_room):
        raise StudyError(
            f"Could not answer any of the {len(chosen)} messages: none leaves room for a reply of "
            f"{limit} tokens in the model's context. Ask for fewer with --max-new-tokens."
        )
    kept = [example for example, fits in zip(chosen, has_room, strict=True) if fits]
    spoken = [
        _judged(
            setting,
            judge,
            name,
            kept,
            [one for one, fits in zip(of, has_room, strict=True) if fits and one],
        )
        for name, of in said.items()
    ]
    own = judged_once(judge, [example.text for example in kept])
    given: dict[str, str | int | bool] = {
        "judge": judge.name,
        "longest reply": limit,
        "sampled": sample,
        "thinking": thinks,
    }
    notes = _notes(setting, judge, spoken, limit, most, len(chosen) - len(kept))
    return _findings(setting, spoken, _agreed(setting, kept, own), kept, given, notes)


def _chosen(setting: Setting, messages: int | None) -> list[Example]:
    """Take the messages: all, or the first of each label."""
    examples = setting.test.examples
    if messages is None:
        return list(examples)
    each = max(1, messages // max(1, len({example.label for example in examples})))
    taken: list[Example] = []
    for example in examples:
        if sum(other.label == example.label for other in taken) < each:
            taken.append(example)
    return taken


def _dialogue(text: str, system: str | None) -> list[dict[str, str]]:
    start = [] if system is None else [{"role": "system", "content": system}]
    return [*start, {"role": "user", "content": text}]


def _judged(
    setting: Setting, judge: Judge, prompt: str, kept: Sequence[Example], said: Sequence[Said]
) -> Spoken:
    verdicts = judged_once(judge, [one.text for one in said])
    return Spoken(
        prompt=prompt,
        said=tuple(said),
        verdicts=tuple(verdicts),
        agreed=_agreed(setting, kept, verdicts),
    )


def _agreed(setting: Setting, kept: Sequence[Example], verdicts: Sequence[Verdict]) -> Agreement:
    return agreement(
        [example.label for example in kept],
        [verdict.label for verdict in verdicts],
        _groups(kept),
        len(setting.test.labels),
        seed=setting.seed,
    )


def _groups(kept: Sequence[Example]) -> list[int]:
    numbers = {group: n for n, group in enumerate({example.group: None for example in kept})}
    return [numbers[example.group] for example in kept]


def _findings(
    setting: Setting,
    spoken: Sequence[Spoken],
    own: Agreement,
    kept: Sequence[Example],
    given: Mapping[str, str | int | bool],
    notes: Sequence[str],
) -> Findings:
    theirs = published_for(setting.loaded.name, TABLE_4) or {}
    labels = setting.test.labels
    chance = 1 / len({example.label for example in kept})
    prompts = _prompts(spoken, own, kept, theirs, chance, setting.seed)
    by_label = _by_label(spoken, own, labels, theirs)
    agreed = {one.prompt: one.agreed for one in spoken}
    return Findings(
        study="expression",
        title="Emotion of messages and of replies",
        source=f"{PAPER_A}, Table 4",
        model=setting.loaded.name,
        sizes={
            "training texts": len(setting.train),
            "messages": len(kept),
            "replies": len(kept) * len(spoken),
        },
        settings=setting.described | dict(given),
        tables=(prompts, by_label),
        figures=(recall_figure(agreed, labels, by_label, chance, setting.loaded.name),),
        notes=(
            *notes,
            *([] if theirs else [f"Table 4 has no figures of {setting.loaded.name!r}."]),
        ),
        numbers={
            "chance": chance,
            "judge's own accuracy": own.accuracy,
            **{f"accuracy, {name}": found.accuracy for name, found in agreed.items()},
        },
    )


def _prompts(
    spoken: Sequence[Spoken],
    own: Agreement,
    kept: Sequence[Example],
    theirs: Mapping[str, Expressed],
    chance: float,
    seed: int,
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for one in spoken:
        published = theirs.get(one.prompt)
        change = None if one is spoken[0] else _change(spoken[0], one, kept, seed)
        rows.append(
            (
                one.prompt,
                one.agreed.n,
                one.agreed.coverage,
                one.agreed.accuracy,
                one.agreed.null,
                change,
                None if published is None else float(np.mean(list(published.recall.values()))),
                None if published is None else published.accuracy,
            )
        )
    rows.append((OF_TEXTS, own.n, own.coverage, own.accuracy, own.null, None, None, None))
    rows.append(("chance", None, None, chance, None, None, None, None))
    return Table(
        name="prompts",
        title="How often the judged emotion of a reply is that of its message",
        columns=(
            "system prompt",
            "n",
            "judged",
            "accuracy",
            "permuted",
            "change",
            "published recall",
            "published accuracy",
        ),
        rows=tuple(rows),
        note=f"Change: from no system prompt, message by message. The row {OF_TEXTS!r} is the "
        "judge on the labelled texts: what it could reach if each reply said its message again. "
        "Published recall is the mean over labels, which compares with accuracy in classes of "
        "equal size; published accuracy is of messages in natural proportions.",
    )


def _change(before: Spoken, after: Spoken, kept: Sequence[Example], seed: int) -> Estimate:
    """Estimate the paired difference in accuracy."""
    hits = [
        np.array([v.label == e.label for v, e in zip(one.verdicts, kept, strict=True)], dtype=float)
        for one in (before, after)
    ]
    return mean(hits[1] - hits[0], _groups(kept), seed=seed)


def _by_label(
    spoken: Sequence[Spoken],
    own: Agreement,
    labels: Sequence[str],
    theirs: Mapping[str, Expressed],
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for prompt, found in [*((one.prompt, one.agreed) for one in spoken), (OF_TEXTS, own)]:
        published = theirs.get(prompt)
        for place, label in enumerate(labels):
            rows.append(
                (
                    prompt,
                    label,
                    found.named[place],
                    found.recalls[place],
                    found.recall_nulls[place],
                    found.precisions[place],
                    None if published is None else published.recall.get(label),
                    None if published is None else published.precision.get(label),
                )
            )
    return Table(
        name="labels",
        title="By label of the message",
        columns=(
            "system prompt",
            "label",
            "named",
            "recall",
            "recall, permuted",
            "precision",
            "published recall",
            "published precision",
        ),
        rows=tuple(rows),
        note="Named: replies judged to express the label. Permuted: verdicts dealt to other "
        "messages. Precision depends on the proportions of the labels: the published one is of "
        "natural proportions.",
    )


def _notes(
    setting: Setting,
    judge: Judge,
    spoken: Sequence[Spoken],
    limit: int,
    most: int,
    left_out: int,
) -> list[str]:
    notes = [
        judge.caution,
        "The judge sees the reply alone. A reply that answers anger with sympathy is a miss here: "
        "accuracy says how far a reply mirrors its message, not how good it is.",
    ]
    if limit < most:
        notes.append(
            f"Replies have at most {limit} tokens instead of {most}: that is half of the context "
            f"of {setting.loaded.name}."
        )
    if left_out:
        notes.append(f"{left_out} messages were left out: longer than the context.")
    for one in spoken:
        notes += _troubles(one)
    return notes


def _troubles(one: Spoken) -> list[str]:
    """Say what of the replies under one prompt was cut, or could not be judged."""
    cut, thinking = sum(s.is_cut for s in one.said), sum(s.is_thinking for s in one.said)
    found = []
    if cut:
        found.append(f"{cut} of {len(one.said)} replies were cut at the limit of tokens")
    if thinking:
        found.append(f"{thinking} of them while the model was still thinking")
    reasons = sorted({verdict.why for verdict in one.verdicts if verdict.label is None})
    for why in reasons:
        found.append(f"{sum(v.why == why for v in one.verdicts)} were not judged: {why}")
    return [f"System prompt {one.prompt!r}: {'; '.join(found)}."] if found else []
