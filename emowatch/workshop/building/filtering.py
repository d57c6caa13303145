"""Step 4 of arXiv 2510.04064: drop what is not English, too short, or there already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from emowatch.workshop.building.built import Report
from emowatch.workshop.building.duplicates import near_duplicates
from emowatch.workshop.building.languages import EnglishCheck
from emowatch.workshop.building.rewriting import folded
from emowatch.workshop.building.rows import CorpusRow, Dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterOptions:
    """What is let through."""

    min_words: int = 3
    """Words have a letter or a digit; white space parts them."""
    language: bool = True
    """Drop what is surely not English."""
    near: float = 0.8
    """Jaccard similarity from which on two texts are near duplicates; 1 turns this off."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What is kept and what is dropped, in the order of the rows."""

    rows: tuple[CorpusRow, ...]
    dropped: tuple[Dropped, ...]

    def as_object(self) -> dict[str, Any]:
        """Give the counts as plain values."""
        reasons = Counter(one.reason for one in self.dropped)
        return {
            "rows": len(self.rows),
            "labels": dict(sorted(Counter(row.label for row in self.rows).items())),
            "dropped": dict(reasons.most_common()),
        }


def count_words(text: str) -> int:
    """Count what has a letter or a digit between white space."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def filter_rows(rows: Sequence[CorpusRow], options: FilterOptions, report: Report) -> Filtered:
    """Drop rows, each for the first reason that holds; of duplicates the first row is kept.

    Reasons, in order: ``fewer than 3 words``, ``duplicate`` (but for case and white space),
    ``not English``, ``near duplicate``.

    Raises:
        UsageError: if a library of the extra ``corpus`` is missing.
    """
    reasons: dict[int, tuple[str, str, str]] = {}  # why, what was found, and whose copy it is
    first: dict[str, CorpusRow] = {}
    check = EnglishCheck() if options.language else None
    for number, row in enumerate(rows):
        words = folded(row.text)
        if count_words(row.text) < options.min_words:
            reasons[number] = f"fewer than {options.min_words} words", "", ""
        elif words in first:
            reasons[number] = "duplicate", _of(first[words], row), first[words].id
        elif check is not None and (language := check.other_language(row.text)):
            reasons[number] = "not English", language, ""
        else:
            first[words] = row
        report("reading", number + 1, len(rows))
    if options.near < 1:
        left = [number for number in range(len(rows)) if number not in reasons]
        texts = [folded(rows[number].text) for number in left]
        found = near_duplicates(texts, options.near, lambda n: report("comparing", n, len(left)))
        for later, earlier in found.items():
            kept, row = rows[left[earlier]], rows[left[later]]
            reasons[left[later]] = "near duplicate", _of(kept, row), kept.id
    # Rows with one text have one id: a copy of those needs nobody to stand for it.
    stands_for = {
        rows[number].id: kept
        for number, (_, _, kept) in reasons.items()
        if kept and kept != rows[number].id
    }
    kept_rows = tuple(
        _linked(row, stands_for) for number, row in enumerate(rows) if number not in reasons
    )
    dropped = tuple(
        Dropped(
            id=rows[number].id,
            text=rows[number].text,
            label=rows[number].label,
            reason=reason,
            detail=detail,
        )
        for number, (reason, detail, _) in sorted(reasons.items())
    )
    return Filtered(kept_rows, dropped)


def _linked(row: CorpusRow, stands_for: Mapping[str, str]) -> CorpusRow:
    """Let a row name, in place of copies that were dropped, those that stand for them, whose kin it
    is. The group of a split that was made before is forgotten."""

    def standing(name: str) -> str:
        passed = set()  # ids of other people's files may be anything, also each other's
        while name in stands_for and name not in passed:
            passed.add(name)
            name = stands_for[name]
        return name

    examples = tuple(map(standing, row.examples))
    return replace(row, parent=standing(row.parent), examples=examples, group=None)


def _of(kept: CorpusRow, row: CorpusRow) -> str:
    other = "" if kept.label == row.label else f", which is labelled {kept.label}"
    return f"of {kept.id}{other}"
