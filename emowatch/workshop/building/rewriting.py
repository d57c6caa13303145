"""Step 2 of arXiv 2510.04064: rewrite neutral texts so that they express an emotion."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

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


def rewrite_rows(
    rows: Sequence[CorpusRow],
    targets: Sequence[str],
    origin: str,
    stage: Stage[str],
    gate: Gate,
    *,
    model: str,
    seed: int,
    limit: int | None,
    report: Report,
) -> Built:
    """Rewrite natural texts labelled `origin`, each to one of `targets` at one of five levels.

    Texts given back unchanged are dropped, as are those that the gate does not let through.

    Raises:
        CorpusError: if there is no text to rewrite.
        RetryableError: if the endpoint is down; answers so far are kept.
        UsageError: if it will not answer.
    """
    natural = {row.id: row for row in rows if row.provenance == "natural" and row.label == origin}
    if not natural:
        raise CorpusError(
            f"Could not rewrite anything because no natural text is labelled {origin!r}. Label "
            "some, or name another label with --from."
        )
    chosen = sorted(natural.values(), key=lambda row: draw(seed, "order", row.id))[:limit]
    built = Built(len(chosen), coverages={"rewrite": stage.coverage, "check": gate.coverage})
    built.gate = gate.figures
    done = 0

    def answered(count: int) -> None:
        nonlocal done
        done += count
        report("rewriting", done, 2 * len(chosen))

    for chunk in in_chunks(chosen, CHUNK):
        asked = [(row, *_lot(seed, row.id, targets)) for row in chunk]
        items = [
            Item("", {"text": row.text, "emotion": emotion, "level": level})
            for row, emotion, level in asked
        ]
        drafts = []
        for (row, emotion, level), found in zip(asked, stage.ask(items, answered), strict=True):
            if isinstance(found, Lost):
                about = Dropped(
                    id=row.id,
                    text=row.text,
                    label=emotion,
                    reason=found.reason,
                    detail=found.detail,
                )
                built.lose(found, about)
            elif same_words(found, row.text):
                built.dropped.append(
                    Dropped(id=row.id, text=row.text, label=emotion, reason=UNCHANGED)
                )
            else:
                drafts.append(
                    CorpusRow(
                        id=text_id(found, "rewritten", row.id),
                        text=found,
                        label=emotion,
                        provenance="rewritten",
                        parent=row.parent,
                        intensity=level,
                        source=row.source,
                        model=model,
                        template=stage.template.name,
                    )
                )
        gate.take(drafts, built, answered)
        answered(len(chunk) - len(drafts))  # there is nothing to check of the others
    return built


def _lot(seed: int, name: str, targets: Sequence[str]) -> tuple[str, int]:
    """Draw an emotion and a level for a text."""
    drawn = draw(seed, "lot", name)
    return targets[drawn % len(targets)], drawn // len(targets) % LEVELS + 1
