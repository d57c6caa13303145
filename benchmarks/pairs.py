"""Time two ways of doing one thing side by side and compare them pair by pair.

A machine's speed drifts; the ratio within a pair drifts far less. Figures are medians of
paired ratios with their quartiles, never absolute times.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time of the other way over time of ours: above 1, ours is faster."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        """Show median and quartiles."""
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.pairs} pairs)"


def compare(
    other: Callable[[], object], ours: Callable[[], object], *, pairs: int, warm_up: int = 1
) -> Ratio:
    """Run both in turn, swapping the order from pair to pair."""
    for _ in range(warm_up):
        other()
        ours()
    ratios = []
    for number in range(pairs):
        first, second = (other, ours) if number % 2 == 0 else (ours, other)
        times = [_timed(first), _timed(second)]
        if number % 2:
            times.reverse()
        ratios.append(times[0] / times[1])
    low, high = ratios[0], ratios[0]
    if pairs > 1:
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(statistics.median(ratios), low, high, pairs)


def _timed(run: Callable[[], object]) -> float:
    started = perf_counter()
    run()
    return perf_counter() - started


def row(name: str, figure: object, goal: str = "") -> None:
    """Print one line of a result table."""
    sys.stdout.write(f"{name:<52} {figure!s:<40} {goal}\n")
    sys.stdout.flush()
