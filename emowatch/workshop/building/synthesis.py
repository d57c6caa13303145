"""Step 3 of arXiv 2510.04064: write new texts after a few examples of an emotion.

The examples of a label are dealt into sets that share none. A new text has seen the texts of one
set only, so that it can be kept on their side of a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emowatch.errors import CorpusError
from emowatch.workshop.building.answering import Answer
from emowatch.workshop.building.asking import Item, Lost, Stage
from emowatch.workshop.building.built import Built, Report, in_chunks
from emowatch.workshop.building.gate import Gate
from emowatch.workshop.building.parsing import read_tagged
from emowatch.workshop.building.rewriting import LEVELS, draw, same_words
from emowatch.workshop.building.rows import CorpusRow, Dropped, text_id

CHUNK = 256
"""Texts that are written before they are checked."""
TAG = "generation"
TOKENS_PER_WORD = 4 / 3
"""Of English in the vocabularies of today's models, roughly."""
SHORTEST = 8
"""Tokens that are asked for, at least."""
COPIED = "copied an example"


@dataclass(frozen=True, slots=True)
class Wish:
    """One text that is to be written."""

    number: int
    label: str
    level: int
    length: int
    """In tokens; that of a natural text of the label."""
    examples: tuple[CorpusRow, ...]


def read_generation(answer: Answer) -> str:
    """Read the text between ``<generation>`` and ``</generation>``."""
    return read_tagged(answer.text, TAG, is_cut=answer.is_cut)


def plan(
    rows: Sequence[CorpusRow], labels: Sequence[str], *, per_label: int, shots: int, seed: int
) -> list[Wish]:
    """Say what is to be written: `per_label` texts of each label, after `shots` examples each.

    Raises:
        CorpusError: if a label has fewer natural texts than one prompt shows.
    """
    by_label: Mapping[str, list[CorpusRow]] = {label: [] for label in labels}
    for row in {row.id: row for row in rows}.values():  # a text counts once
        if row.provenance == "natural" and row.label in by_label:
            by_label[row.label].append(row)
    poor = {label: len(found) for label, found in by_label.items() if len(found) < shots}
    if poor:
        told = ", ".join(f"{label} {n}" for label, n in poor.items())
        raise CorpusError(
            f"Could not show {shots} examples of each label: there are too few natural texts "
            f"({told}). Label more texts, lower --shots, or name other --labels."
        )
    wishes = []
    for label, found in by_label.items():
        dealt = sorted(found, key=lambda row: draw(seed, "deal", row.id))
        sets = [tuple(dealt[n : n + shots]) for n in range(0, len(dealt) - shots + 1, shots)]
        for number in range(per_label):
            drawn = draw(seed, "wish", label, number)
            examples = sets[number % len(sets)]
            like = dealt[drawn % len(dealt)].text
            length = max(SHORTEST, round(len(like.split()) * TOKENS_PER_WORD))
            level = drawn // len(dealt) % LEVELS + 1
            wishes.append(Wish(number, label, level, length, examples))
    return wishes


def synthesize(
    wishes: Sequence[Wish], stage: Stage[str], gate: Gate, *, model: str, report: Report
) -> Built:
    """Write what is wished for; what copies an example, or the gate does not let through, drops.

    Raises:
        RetryableError: if the endpoint is down; answers so far are kept.
        UsageError: if it will not answer.
    """
    built = Built(len(wishes), coverages={"synthesize": stage.coverage, "check": gate.coverage})
    built.gate = gate.figures
    done = 0

    def answered(count: int) -> None:
        nonlocal done
        done += count
        report("synthesizing", done, 2 * len(wishes))

    for chunk in in_chunks(wishes, CHUNK):
        drafts = []
        for wish, found in zip(chunk, stage.ask(_items(chunk), answered), strict=True):
            name = f"{wish.label} {wish.number}"
            if isinstance(found, Lost):
                about = Dropped(
                    id=name, text="", label=wish.label, reason=found.reason, detail=found.detail
                )
                built.lose(found, about)
                continue
            row = _row(wish, found, stage, model)
            if any(same_words(found, example.text) for example in wish.examples):
                built.dropped.append(
                    Dropped(id=row.id, text=found, label=wish.label, reason=COPIED)
                )
            else:
                drafts.append(row)
        gate.take(drafts, built, answered)
        answered(len(chunk) - len(drafts))
    return built


def _items(wishes: Sequence[Wish]) -> list[Item]:
    return [
        Item(
            f"{wish.label} {wish.number}",
            {
                "examples": [example.text for example in wish.examples],
                "emotion": wish.label,
                "level": wish.level,
                "length": wish.length,
            },
        )
        for wish in wishes
    ]


def _row(wish: Wish, text: str, stage: Stage[str], model: str) -> CorpusRow:
    return CorpusRow(
        id=text_id(text, "synthetic", wish.label, wish.number),
        text=text,
        label=wish.label,
        provenance="synthetic",
        parent=wish.examples[0].parent,
        intensity=wish.level,
        examples=tuple(example.id for example in wish.examples),
        source=wish.examples[0].source,
        model=model,
        template=stage.template.name,
    )
