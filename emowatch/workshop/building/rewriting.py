"""Step 2 of arXiv 2510.04064: rewrite neutral texts so that they express an emotion."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from emowatch.errors import CorpusError
from emowatch.workshop.building.answering import Answer
from emowatch.workshop.building.asking import Item, Lost, Stage
from emowatch.workshop.building.built import Built, Report, in_chunks
from emowatch.workshop.building.gate import Gate
from emowatch.workshop.building.parsing import read_tagged
from emowatch.workshop.building.rows import CorpusRow, Dropped, text_id

CHUNK = 256
"""Texts that are rewritten before they are checked."""
LEVELS = 5
TAG = "REWRITE"
UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Lot:
    """One text that is to be rewritten, and how."""

    row: CorpusRow
    emotion: str
    level: int


def read_rewrite(answer: Answer) -> str:
    """Read the text between ``<REWRITE>`` and ``</REWRITE>``."""
    return read_tagged(answer.text, TAG, is_cut=answer.is_cut)


def draw(seed: int, *parts: object) -> int:
    """Draw a number below 2^64 that depends on the seed and the parts alone.

    So each item's lot is the same whatever else is in the file, and its answer is found again.
    """
    told = repr((seed, *parts)).encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8, person=b"draw").digest())


def same_words(one: str, other: str) -> bool:
    """Tell whether two texts differ in case and white space at most."""
    return folded(one) == folded(other)


def folded(text: str) -> str:
    """Give a text without what case, white space and Unicode's forms make different."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def plan(
    rows: Sequence[CorpusRow],
    targets: Sequence[str],
    *,
    origin: str,
    seed: int,
    limit: int | None,
) -> list[Lot]:
    """Say which natural texts labelled `origin` become what: one of `targets`, at one of 5 levels.

    Raises:
        CorpusError: if there is no text to rewrite.
    """
    natural = {row.id: row for row in rows if row.provenance == "natural" and row.label == origin}
    if not natural:
        raise CorpusError(
            f"Could not rewrite anything because no natural text is labelled {origin!r}. Label "
            "some, or name another label with --from."
        )
    chosen = sorted(natural.values(), key=lambda row: draw(seed, "order", row.id))[:limit]
    lots = []
    for row in chosen:
        drawn = draw(seed, "lot", row.id)
        level = drawn // len(targets) % LEVELS + 1
        lots.append(Lot(row, targets[drawn % len(targets)], level))
    return lots


def rewrite(
    lots: Sequence[Lot], stage: Stage[str], gate: Gate, *, model: str, report: Report
) -> Built:
    """Rewrite texts; those given back unchanged, or that the gate does not let through, drop.

    Raises:
        RetryableError: if the endpoint is down; answers so far are kept.
        UsageError: if it will not answer.
    """
    built = Built(len(lots), coverages={"rewrite": stage.coverage, "check": gate.coverage})
    built.gate = gate.figures
    done = 0

    def answered(count: int) -> None:
        nonlocal done
        done += count
        report("rewriting", done, 2 * len(lots))

    for chunk in in_chunks(lots, CHUNK):
        drafts = []
        for lot, found in zip(chunk, stage.ask(_items(chunk), answered), strict=True):
            if isinstance(found, Lost):
                built.lose(found, _dropped(lot, found.reason, found.detail))
            elif same_words(found, lot.row.text):
                built.dropped.append(_dropped(lot, UNCHANGED))
            else:
                drafts.append(_draft(lot, found, stage, model))
        gate.take(drafts, built, answered)
        answered(len(chunk) - len(drafts))  # there is nothing to check of the others
    return built


def _items(lots: Sequence[Lot]) -> list[Item]:
    return [
        Item("", {"text": lot.row.text, "emotion": lot.emotion, "level": lot.level}) for lot in lots
    ]


def _dropped(lot: Lot, reason: str, detail: str = "") -> Dropped:
    row = lot.row
    return Dropped(id=row.id, text=row.text, label=lot.emotion, reason=reason, detail=detail)


def _draft(lot: Lot, text: str, stage: Stage[str], model: str) -> CorpusRow:
    return CorpusRow(
        id=text_id(text, "rewritten", lot.row.id),
        text=text,
        label=lot.emotion,
        provenance="rewritten",
        parent=lot.row.parent,
        intensity=lot.level,
        source=lot.row.source,
        model=model,
        template=stage.template.name,
    )
