"""What a benchmark measured: a file of JSON lines that outlives a crash, and spreads of ratios."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESAMPLES = 4_000
"""Of the bootstrap."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Ratios of one way over another: median, quartiles, and a bootstrap interval of the median."""

    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float]
    """In which the median of such ratios lies with 95 %, were the rounds independent."""
    count: int

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Spread:
        """Summarise ratios, of which there is at least one."""
        values = np.asarray(ratios)
        drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
        low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975)).tolist()
        first, third = np.quantile(values, (0.25, 0.75)).tolist()
        return cls(float(np.median(values)), (first, third), (low, high), len(values))

    def __str__(self) -> str:
        """Show the median with its quartiles in brackets and its interval after them."""
        (first, third), (low, high) = self.quartiles, self.interval
        return f"{self.median:.3f} [{first:.3f}, {third:.3f}], {low:.3f} to {high:.3f}"

    def verdict(self, limit: float) -> str:
        """Say whether the median is at most `limit`, if the whole interval lies on one side."""
        low, high = self.interval
        return "met" if high <= limit else "missed" if low > limit else "not decided"


class Results:
    """A file of JSON lines that grows with each round, so that a crash loses nothing."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Append to `path`; `about` is said on every line."""
        self.path = path
        self._about = dict(about)

    def add(self, kind: str, **facts: Any) -> None:
        """Write one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **self._about, **facts}) + "\n")


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """List the lines of a file of results; a torn last one is left out."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
