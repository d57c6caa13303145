"""The tables of the study of expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emowatch.studies.asking import Verdict
from emowatch.studies.findings import Cell, Table
from emowatch.studies.published import Expressed
from emowatch.studies.shares import Agreement, mean
from emowatch.studies.speaking import Said
from emowatch.workshop.corpora import Example
from emowatch.workshop.corpora.examples import number_groups
from emowatch.workshop.metrics import Estimate

OF_TEXTS = "the messages themselves"
"""Stands in tables where the judge was given the labelled texts and no replies."""

PROMPT_COLUMNS = (
    *("system prompt", "n", "judged", "accuracy", "permuted", "change"),
    *("published recall", "published accuracy"),
)
LABEL_COLUMNS = (
    *("system prompt", "label", "named", "recall", "recall, permuted", "precision"),
    *("published recall", "published precision"),
)
"""The last two of either are there for the paper's models alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """Replies to the messages under one system prompt, and what the judge says of them."""

    prompt: str
    said: tuple[Said, ...]
    verdicts: tuple[Verdict, ...]
    agreed: Agreement


def prompts_table(
    spoken: Sequence[Spoken],
    own: Agreement,
    kept: Sequence[Example],
    theirs: Mapping[str, Expressed],
    chance: float,
    seed: int,
) -> Table:
    """Lay out accuracy by system prompt, above the judge on the messages and chance."""
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
    note = (
        f"Change: from no system prompt, message by message. The row {OF_TEXTS!r} is the judge on "
        "the labelled texts, without the model: whether it knows these labels at all."
    )
    if theirs:
        note += (
            " Published recall is the mean over labels, which compares with accuracy in classes "
            "of equal size, as published accuracy does not."
        )
    return Table(
        name="prompts",
        title="How often the judged emotion of a reply is that of its message",
        columns=PROMPT_COLUMNS if theirs else PROMPT_COLUMNS[:-2],
        rows=tuple(row if theirs else row[:-2] for row in rows),
        note=note,
    )


def _change(before: Spoken, after: Spoken, kept: Sequence[Example], seed: int) -> Estimate:
    """Estimate the paired difference in accuracy."""
    hits = [
        np.array([v.label == e.label for v, e in zip(one.verdicts, kept, strict=True)], dtype=float)
        for one in (before, after)
    ]
    return mean(hits[1] - hits[0], number_groups(kept), seed=seed)


def labels_table(
    spoken: Sequence[Spoken],
    own: Agreement,
    labels: Sequence[str],
    theirs: Mapping[str, Expressed],
) -> Table:
    """Lay out recall and precision by system prompt and label."""
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
        columns=LABEL_COLUMNS if theirs else LABEL_COLUMNS[:-2],
        rows=tuple(row if theirs else row[:-2] for row in rows),
        note="Named: replies judged to express the label. Permuted: verdicts dealt to other "
        "messages."
        + (" Precision depends on how many messages of each label there are." if theirs else ""),
    )
