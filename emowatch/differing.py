"""Compare two stored sessions of the same prompts: how far apart are their scores, and by chance?

Tokens are paired by turn, row and offset. The null is that the two sessions could be exchanged:
then the sign of each reply's difference is a coin. Whole replies are exchanged, since the tokens of
one are alike: on slowly drifting scores, exchanging blocks of 16 tokens called three of four pairs
of sessions different that were not. The largest statistic over all labels is compared with its own
distribution, which holds the rate of false findings over the family (Westfall & Young 1993).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emowatch.errors import TraceError
from emowatch.text import clean_line
from emowatch.trace import TokenTable, Trace

FEWEST_REPLIES = 6
"""With fewer nothing is said of chance: the signs of 5 replies give no p below .06."""
PERMUTATIONS = 10_000
Floats = NDArray[np.float64]
_Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LabelDifference:
    """How one label differs."""

    label: str
    first: float
    second: float
    """Means over the paired tokens."""
    difference: float
    """Second less first."""
    interval: tuple[float, float] | None
    """95 %, by bootstrap over replies; `None` for too few."""
    p: float | None
    """Chance of a difference as large as this in any label, were the sessions exchangeable."""
    correlation: float | None
    """Of the paired scores; `None` where one of them does not vary."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How two sessions differ."""

    bank: str
    tokens: int
    """Paired ones."""
    only_first: int
    only_second: int
    """Tokens without a partner: replies of other lengths."""
    replies: int
    """Paired ones."""
    distance: float
    """Mean total variation between paired scores: 0 for the same, 1 for disjoint."""
    same_dominant: float
    """Share of paired tokens with the same dominant label."""
    parted_at: tuple[int, int, int] | None
    """Turn, row and offset of the first pair whose dominant labels differ."""
    labels: tuple[LabelDifference, ...]

    @property
    def p(self) -> float | None:
        """Chance of the largest difference of all; `None` for too few replies."""
        return min((one.p for one in self.labels if one.p is not None), default=None)


def compare_traces(
    first: Trace, second: Trace, *, bank: str | None = None, seed: int = 0
) -> Difference:
    """Pair the replies of two sessions token by token and say how they differ.

    Args:
        first: one session.
        second: the other: another model, prompt, quantisation, or with steering.
        bank: name of the bank in both; the first of each, where none is named.
        seed: of permutations and bootstrap.

    Raises:
        TraceError: if a bank is not there, their labels differ, or no token has a partner.
    """
    tables = [_table(trace, bank) for trace in (first, second)]
    if tables[0].bank.labels != tables[1].bank.labels:
        shown = " and ".join(clean_line(", ".join(table.bank.labels)) for table in tables)
        raise TraceError(f"Could not compare the traces: their banks have other labels: {shown}.")
    one, other = map(_replies, tables)
    keys = sorted(one.keys() & other.keys())
    if not keys:
        raise TraceError(
            "Could not compare the traces: no reply token of one has a partner in the other, with "
            "the same turn, row and offset."
        )
    left = np.stack([one[key] for key in keys])  # [tokens, labels]
    right = np.stack([other[key] for key in keys])
    known = np.asarray(np.isfinite(np.hstack((left, right))).all(1))
    keys = [key for key, is_known in zip(keys, known, strict=True) if is_known]
    left, right = left[known], right[known]
    if not keys:
        raise TraceError("Could not compare the traces: their scores are no numbers.")
    rows = {row: n for n, row in enumerate(dict.fromkeys(key[:2] for key in keys))}
    of_reply = np.array([rows[key[:2]] for key in keys])
    sums = np.zeros((len(rows), left.shape[1]))  # [replies, labels]
    np.add.at(sums, of_reply, right - left)
    p: list[float | None] = [None] * left.shape[1]
    intervals: list[tuple[float, float] | None] = [None] * left.shape[1]
    if len(rows) >= FEWEST_REPLIES:
        rng = np.random.default_rng(seed)
        p = _permuted(sums, rng)
        intervals = _bootstrapped(sums, np.bincount(of_reply).astype(float), rng)
    parted = left.argmax(1) != right.argmax(1)
    return Difference(
        bank=tables[0].bank.name,
        tokens=len(keys),
        only_first=len(one.keys() - other.keys()),
        only_second=len(other.keys() - one.keys()),
        replies=len(rows),
        distance=float(np.abs(left - right).sum(1).mean() / 2),
        same_dominant=float(1 - parted.mean()),
        parted_at=keys[int(parted.argmax())] if parted.any() else None,
        labels=tuple(
            LabelDifference(
                label=label,
                first=float(left[:, n].mean()),
                second=float(right[:, n].mean()),
                difference=float((right - left)[:, n].mean()),
                interval=intervals[n],
                p=p[n],
                correlation=_correlation(left[:, n], right[:, n]),
            )
            for n, label in enumerate(tables[0].bank.labels)
        ),
    )


def _table(trace: Trace, bank: str | None) -> TokenTable:
    if bank is None:
        return trace.tokens
    if bank not in trace.by_bank:
        raise TraceError(
            f"Could not compare the traces: one has no bank {clean_line(bank)!r}; it has "
            f"{clean_line(', '.join(trace.by_bank))}."
        )
    return trace.by_bank[bank]


def _replies(table: TokenTable) -> Mapping[_Key, Floats]:
    return {
        (score.turn, score.sequence, score.offset): score.scores.array.astype(np.float64)
        for score in table
        if score.offset is not None
    }


def _permuted(sums: Floats, rng: np.random.Generator) -> list[float | None]:
    """Give for each label the share of flips whose largest statistic is as large as its own."""
    scale = np.sqrt((sums**2).sum(0))
    scale[scale == 0] = np.inf  # a label that never differs is never found to
    seen = np.abs(sums.sum(0)) / scale
    signs = rng.choice([-1.0, 1.0], (PERMUTATIONS, len(sums)))
    largest = (np.abs(signs @ sums) / scale).max(1)
    as_large = (largest[:, None] >= seen[None, :] - 1e-12).sum(0)
    found: list[float | None] = ((1 + as_large) / (1 + PERMUTATIONS)).tolist()
    return found


def _bootstrapped(
    sums: Floats, counts: Floats, rng: np.random.Generator
) -> list[tuple[float, float] | None]:
    """Give for each label the 95 % interval of the mean difference."""
    drawn = rng.integers(len(counts), size=(2_000, len(counts)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)[:, None]
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _correlation(left: Floats, right: Floats) -> float | None:
    if len(left) < 2 or not left.std() or not right.std():
        return None
    return float(np.corrcoef(left, right)[0, 1])
