"""How scores move over the turns of a conversation: summaries, a trend, a change.

Chance is judged by permutation of the turns, which supposes nothing about how scores are spread;
the largest statistic over all labels is compared with its own distribution, as in `differing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emowatch.records import SEGMENTS, Scores, Segment
from emowatch.trace import Trace

FEWEST_TURNS = 6
"""With fewer, nothing is said of chance: 5 turns have 120 orders, and a change among them is seldom
rare enough."""
PERMUTATIONS = 5_000
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TurnSummary:
    """Mean scores of each segment of one row in one turn."""

    turn: int
    sequence: int
    tokens: int
    """Of the reply."""
    means: dict[Segment, Scores]


@dataclass(frozen=True, slots=True)
class Movement:
    """How one label moves over turns."""

    label: str
    slope: float
    """Change per turn, by least squares."""
    slope_p: float | None
    """Chance of such a slope in any label, were the order of the turns accidental."""
    change_at: int | None
    """Index among the turns of the first one after the sharpest change of the mean."""
    change: float
    """Mean after it less mean before it."""
    change_p: float | None


def summarise(trace: Trace, bank: str | None = None) -> list[TurnSummary]:
    """Summarise each reply of a trace, in order.

    Args:
        trace: a session.
        bank: whose scores; the first bank's, where none is named.
    """
    table = trace.tokens if bank is None else trace.by_bank[bank]
    rows: dict[tuple[int, int], int] = {}
    for score in table:
        key = (score.turn, score.sequence)
        rows[key] = rows.get(key, 0) + (score.offset is not None)
    found = []
    for (turn, sequence), tokens in rows.items():
        means: dict[Segment, Scores] = {}
        for segment in SEGMENTS:
            mean = table.mean(segment, turn, sequence)
            if mean is not None:
                means[segment] = Scores(table.bank.labels, mean)
        found.append(TurnSummary(turn, sequence, tokens, means))
    return found


def movements(
    summaries: Sequence[TurnSummary], segment: Segment = "reply", *, seed: int = 0
) -> list[Movement]:
    """Say for each label how its mean moves over the turns that have the segment.

    One row of a batch is one conversation: pass the summaries of one row.
    """
    means = [one.means[segment] for one in summaries if segment in one.means]
    kept = [scores for scores in means if np.isfinite(scores.array).all()]
    if len(kept) < 2:
        return []
    labels = tuple(kept[0])
    values = np.array([scores.array for scores in kept], dtype=np.float64)  # [turns, labels]
    rng = np.random.default_rng(seed)
    slopes, (places, changes) = _slopes(values), _sharpest(values)
    slope_p: list[float | None] = [None] * len(labels)
    change_p = slope_p
    if len(kept) >= FEWEST_TURNS:
        orders = np.argsort(rng.random((PERMUTATIONS, len(kept))), axis=1)
        spread = values.std(0)
        spread[spread == 0] = np.inf
        slope_p = _chance(values, orders, lambda v: np.abs(_slopes(v)) / spread)
        change_p = _chance(values, orders, lambda v: _contrast(v) / spread)
    return [
        Movement(
            label=label,
            slope=float(slopes[n]),
            slope_p=slope_p[n],
            change_at=int(places[n]),
            change=float(changes[n]),
            change_p=change_p[n],
        )
        for n, label in enumerate(labels)
    ]


def _slopes(values: Floats) -> Floats:
    """Fit a line to each column of ``[turns, labels]``."""
    turns = np.arange(len(values)) - (len(values) - 1) / 2
    found: Floats = turns @ values / (turns @ turns)
    return found


def _splits(values: Floats) -> Floats:
    """Give mean after less mean before for each place ``[turns - 1, labels]``."""
    n = len(values)
    before = np.cumsum(values, 0)[:-1]
    sizes = np.arange(1, n)[:, None]
    found: Floats = (values.sum(0) - before) / (n - sizes) - before / sizes
    return found


def _weighed(values: Floats) -> Floats:
    """Weigh each split by how much it rests on, as a t statistic does."""
    n = len(values)
    sizes = np.arange(1, n)[:, None]
    found: Floats = np.abs(_splits(values)) * np.sqrt(sizes * (n - sizes) / n)
    return found


def _contrast(values: Floats) -> Floats:
    found: Floats = _weighed(values).max(0)
    return found


def _sharpest(values: Floats) -> tuple[NDArray[np.int64], Floats]:
    place = _weighed(values).argmax(0)  # [labels]
    return place + 1, _splits(values)[place, np.arange(values.shape[1])]


def _chance(
    values: Floats, orders: NDArray[np.int64], statistic: Callable[[Floats], Floats]
) -> list[float | None]:
    """Give for each label the share of orders whose largest statistic is as large as its own."""
    seen = statistic(values)
    largest = np.array([statistic(values[order]).max() for order in orders])
    as_large = (largest[:, None] >= seen[None, :] - 1e-12).sum(0)
    found: list[float | None] = ((1 + as_large) / (1 + len(orders))).tolist()
    return found
