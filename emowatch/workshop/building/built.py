"""What a step of building gives: rows, what was left out, and the figures of how it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from emowatch.errors import EmowatchError, RetryableError
from emowatch.workshop.building.asking import Coverage, Lost, share_interval
from emowatch.workshop.building.rows import CorpusRow, Dropped

Report = Callable[[str, int, int], None]
"""Called with the name of the step, what is done and what there is to do."""
OTHER_EMOTION = "another emotion"
"""Why a text is left out that was found to express another than was asked for."""
GateMode = Literal["match", "relabel"]
"""What becomes of a text that is found to express another emotion than was asked for."""


@dataclass(slots=True)
class GateFigures:
    """How often a written text was found to express what was asked for."""

    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Texts by the emotion asked for and the label found."""

    @property
    def total(self) -> int:
        """Count the texts that were checked."""
        return self.found.total()

    @property
    def hits(self) -> int:
        """Count those that express what was asked for."""
        return sum(n for (asked, found), n in self.found.items() if asked == found)

    @property
    def chance(self) -> float:
        """Give the share of hits if what was asked for had nothing to do with what was found."""
        asked, found = Counter[str](), Counter[str]()
        for (one, other), n in self.found.items():
            asked[one] += n
            found[other] += n
        return sum(n * found[label] for label, n in asked.items()) / max(1, self.total) ** 2

    def as_object(self) -> dict[str, Any]:
        """Give it as plain values."""
        by_label: dict[str, dict[str, int]] = {}
        for (asked, found), n in sorted(self.found.items()):
            by_label.setdefault(asked, {})[found] = n
        return {
            "checked": self.total,
            "passed": self.hits,
            "share": self.hits / self.total if self.total else None,
            "share_interval": list(share_interval(self.hits, self.total)) if self.total else None,
            "chance": self.chance if self.total else None,
            "found": by_label,
        }


@dataclass(slots=True)
class Built:
    """The result of labelling, rewriting or synthesizing."""

    asked: int
    """Items that there were to do."""
    rows: list[CorpusRow] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    pending: Counter[str] = field(default_factory=Counter)
    """Items without an answer, by reason; the same command asks again."""
    why: str = ""
    """What the server failed with, for the last item that it failed for."""
    coverages: dict[str, Coverage] = field(default_factory=dict)
    """By step."""
    gate: GateFigures | None = None

    def lose(self, lost: Lost, dropped: Dropped) -> None:
        """Count an item for which there is nothing to use."""
        if lost.is_pending:
            self.pending[lost.reason] += 1
            self.why = lost.detail or self.why
        else:
            self.dropped.append(dropped)

    def check_complete(self) -> None:
        """Return if every item has an answer and at least one row came of them.

        Raises:
            RetryableError: if the server failed for some.
            EmowatchError: if the cost limit was reached, or not one answer can be used.
        """
        if n := self.pending["not asked"]:
            raise EmowatchError(
                f"Stopped at --max-cost with {n:,} of {self.asked:,} items to do. Raise it and run "
                "the same command again: what is answered is not asked again."
            )
        if n := self.pending["no answer"]:
            raise RetryableError(
                f"Could not get an answer for {n:,} of {self.asked:,} items; the others are "
                f"written. The last failure: {self.why} Run the same command again: only these "
                "are asked."
            )
        if not self.rows:
            reason, n = Counter(one.reason for one in self.dropped).most_common(1)[0]
            gate = ""
            if reason == OTHER_EMOTION:
                gate = " Or keep the texts under what they do express, with --gate relabel."
            raise EmowatchError(
                f"Could not use any of the answers for {self.asked:,} items; most often: {reason} "
                f"({n:,}). Try another model, or edit the template (emowatch data templates).{gate}"
            )

    def as_object(self) -> dict[str, Any]:
        """Give the figures as plain values."""
        return {
            "asked": self.asked,
            "rows": len(self.rows),
            "labels": dict(sorted(Counter(row.label for row in self.rows).items())),
            "dropped": dict(Counter(one.reason for one in self.dropped).most_common()),
            "pending": dict(self.pending),
            "coverage": {step: found.as_object() for step, found in self.coverages.items()},
            "gate": None if self.gate is None else self.gate.as_object(),
        }


def in_chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Cut a sequence into parts of at most `size`."""
    return [items[first : first + size] for first in range(0, len(items), size)]
