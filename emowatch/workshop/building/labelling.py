"""Step 1 of arXiv 2510.04064: label natural texts with a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from emowatch.workshop.building.answering import Answer
from emowatch.workshop.building.asking import Item, Lost, Stage
from emowatch.workshop.building.built import Built, Report, in_chunks
from emowatch.workshop.building.parsing import Verdict, read_verdict
from emowatch.workshop.building.rows import CorpusRow, Dropped
from emowatch.workshop.building.texts import Texts

CHUNK = 4096
"""Texts whose prompts are in memory at a time."""
NOT_ENGLISH = "not English"
NO_EMOTION = "no emotion"


def verdict_of(answer: Answer, labels: Sequence[str]) -> Verdict:
    """Read a labeller's answer."""
    return read_verdict(answer.text, labels, is_cut=answer.is_cut)


def verdict_reader(labels: Sequence[str]) -> partial[Verdict]:
    """Give what reads a labeller's answers for these labels."""
    return partial(verdict_of, labels=tuple(labels))


def label_texts(
    texts: Texts, stage: Stage[Verdict], labels: Sequence[str], model: str, report: Report
) -> Built:
    """Label every text; those that are not English, or that no answer can be read for, are dropped.

    Raises:
        RetryableError: if the endpoint is down; answers so far are kept.
        UsageError: if it will not answer.
    """
    total = len(texts.by_id)
    built = Built(total, coverages={"label": stage.coverage})
    done = 0

    def answered(count: int) -> None:
        nonlocal done
        done += count
        report("labelling", done, total)

    for chunk in in_chunks(list(texts.by_id.items()), CHUNK):
        items = [Item("", {"text": text, "labels": list(labels)}) for _, text in chunk]
        for (name, text), found in zip(chunk, stage.ask(items, answered), strict=True):
            if isinstance(found, Lost):
                built.lose(
                    found, Dropped(id=name, text=text, reason=found.reason, detail=found.detail)
                )
            elif not found.is_english:
                built.dropped.append(Dropped(id=name, text=text, reason=NOT_ENGLISH))
            elif found.label is None:
                built.dropped.append(Dropped(id=name, text=text, reason=NO_EMOTION))
            else:
                built.rows.append(
                    CorpusRow(
                        id=name,
                        text=text,
                        label=found.label,
                        provenance="natural",
                        parent=name,
                        source=texts.source,
                        model=model,
                        template=stage.template.name,
                    )
                )
    return built
