"""Metrics of a classifier with 95 % intervals, by bootstrap over groups.

Rows of one group (a reply's offsets, near-copies of a text) are resampled together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
ECE_BINS = 15
RESAMPLES = 1000
CHUNK = 50
"""Resamples in one matrix product."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end."""
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a classifier said of rows, and what is true of them."""

    scores: NDArray[np.floating]
    """Probabilities ``[rows, labels]``."""
    labels: Ints
    """True class numbers ``[rows]``."""
    groups: Ints
    """Group numbers ``[rows]``; rows of one group are resampled together."""


@dataclass(frozen=True, slots=True)
class Report:
    """Metrics of one set of predictions."""

    balanced_accuracy: Estimate
    macro_f1: Estimate
    ece: Estimate
    confusion: Ints
    """``[true, predicted]`` counts of rows."""
    confusion_interval: Doubles
    """``[true, predicted, 2]``, low and high end of each count."""
    precisions: tuple[Estimate | None, ...]
    """By label; `None` for a label never predicted."""
    recalls: tuple[Estimate | None, ...]
    """By label; `None` for a label without rows."""

    def recall(self) -> Doubles:
        """Recall by label without intervals; 0 for a label without rows."""
        return np.array([0.0 if one is None else one.value for one in self.recalls])

    def precision(self) -> Doubles:
        """Precision by label without intervals; 0 for a label never predicted."""
        return np.array([0.0 if one is None else one.value for one in self.precisions])


def report(
    scores: NDArray[np.floating],
    labels: Sequence[int] | Ints,
    groups: Sequence[int] | Ints,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Report:
    """Measure predictions.

    Args:
        scores: probabilities ``[rows, labels]``.
        labels: true class numbers ``[rows]``.
        groups: group numbers ``[rows]``.
        seed: of the bootstrap.
        resamples: bootstrap samples.
    """
    classes = scores.shape[1]
    true, group = np.asarray(labels, dtype=np.int64), np.unique(groups, return_inverse=True)[1]
    predicted, confidence = scores.argmax(1), scores.max(1)
    n_groups = int(group.max()) + 1
    # Each row adds to one cell of the confusion matrix and to one confidence bin; every metric
    # follows from sums of these, so a resample is one matrix product.
    cells = np.zeros((n_groups, classes * classes + 3 * ECE_BINS))
    np.add.at(cells, (group, true * classes + predicted), 1)
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    base = classes * classes
    np.add.at(cells, (group, base + bins), 1)
    np.add.at(cells, (group, base + ECE_BINS + bins), confidence)
    np.add.at(cells, (group, base + 2 * ECE_BINS + bins), predicted == true)
    table = _resampled(cells, seed, resamples)  # [1 + resamples, cells]
    matrices = table[:, :base].reshape(-1, classes, classes)
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    return Report(
        balanced_accuracy=_estimate(_balanced_accuracy(matrices)),
        macro_f1=_reflected(_estimate(_macro_f1(matrices))),
        ece=_reflected(_estimate(_ece(table[:, base:]))),
        confusion=matrices[0].astype(np.int64),
        confusion_interval=_intervals(matrices),
        precisions=_shares(hits, matrices.sum(1)),
        recalls=_shares(hits, matrices.sum(2)),
    )


def fall(
    before: Predictions, after: Predictions, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Measure how much balanced accuracy falls from one set of predictions to another.

    Both are of the same groups, which are resampled for both at once: what makes a group hard
    in either does not widen the interval.
    """
    classes = before.scores.shape[1]
    groups = np.union1d(before.groups, after.groups)
    cells = np.zeros((2, len(groups), classes, classes))
    for place, one in enumerate((before, after)):
        where = np.searchsorted(groups, one.groups)
        np.add.at(cells[place], (where, one.labels, one.scores.argmax(1)), 1)
    joined = np.moveaxis(cells, 0, 1).reshape(len(groups), -1)
    table = _resampled(joined, seed, resamples).reshape(-1, 2, classes, classes)
    return _estimate(_balanced_accuracy(table[:, 0]) - _balanced_accuracy(table[:, 1]))


def named(name: str, found: Estimate | None) -> dict[str, Any]:
    """Give a figure and its interval in four digits, under their names on cards."""
    if found is None:
        return {name: None, f"{name}_interval": None}
    ends = round(float(found.low), 4), round(float(found.high), 4)
    return {name: round(float(found.value), 4), f"{name}_interval": ends}


def _resampled(cells: Doubles, seed: int, resamples: int) -> Doubles:
    """Sum cells ``[groups, cells]`` over all groups, then over each bootstrap sample of them."""
    n_groups = len(cells)
    rng = np.random.default_rng(seed)
    samples = [cells.sum(0)[None]]
    for first in range(0, resamples, CHUNK):
        counts = [
            np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
            for _ in range(first, min(first + CHUNK, resamples))
        ]
        samples.append(np.stack(counts).astype(np.float64) @ cells)
    return np.concatenate(samples)


def _estimate(values: Doubles) -> Estimate:
    """Take the first value as the figure and the rest as its bootstrap distribution."""
    if len(values) == 1:
        return Estimate(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Estimate(float(values[0]), float(low), float(high))


def _intervals(values: Doubles) -> Doubles:
    """Give low and high end for each place of ``[1 + resamples, …]``."""
    if len(values) == 1:
        return np.full((*values.shape[1:], 2), np.nan)
    ends: Doubles = np.quantile(values[1:], (0.025, 0.975), axis=0)
    return np.moveaxis(ends, 0, -1)


def _shares(hits: Doubles, totals: Doubles) -> tuple[Estimate | None, ...]:
    """Estimate hits of totals by label, both ``[1 + resamples, labels]``.

    Resamples without the label say nothing of it and are left out.
    """
    return tuple(
        _estimate(hit[total > 0] / total[total > 0]) if total[0] > 0 else None
        for hit, total in zip(hits.T, totals.T, strict=True)
    )


def _reflected(found: Estimate) -> Estimate:
    """Take the basic bootstrap interval, stretched to hold the figure.

    Resamples of ECE are biased upwards and those of macro-F1 downwards.
    """
    if math.isnan(found.low):
        return found
    low, high = 2 * found.value - found.high, 2 * found.value - found.low
    low, high = min(found.value, low), max(found.value, high)
    return Estimate(found.value, max(0.0, low), min(1.0, high))


def _balanced_accuracy(matrices: Doubles) -> Doubles:
    totals = matrices.sum(2)
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    present = totals > 0
    recalls = np.where(present, hits / np.maximum(totals, 1), 0.0)
    mean: Doubles = recalls.sum(1) / np.maximum(1, present.sum(1))
    return mean


def _macro_f1(matrices: Doubles) -> Doubles:
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    sums = matrices.sum(1) + matrices.sum(2)
    present = sums > 0
    scores = np.where(present, 2 * hits / np.maximum(sums, 1), 0.0)
    mean: Doubles = scores.sum(1) / np.maximum(1, present.sum(1))
    return mean


def _ece(sums: Doubles) -> Doubles:
    """Expected calibration error over 15 equal bins of the top score."""
    counts, confidence, hits = np.split(sums, 3, axis=1)
    gap: Doubles = np.abs(confidence - hits).sum(1) / np.maximum(1, counts.sum(1))
    return gap


def means(
    values: Doubles,
    groups: Sequence[int] | Ints,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Estimate, ...]:
    """Estimate the mean over rows of each column of `values` ``[rows, columns]``."""
    sums, counts = _by_group(values, groups)
    rng = np.random.default_rng(seed)
    table = np.concatenate([sums, counts[:, None]], axis=1)  # [groups, columns + 1]
    drawn = np.concatenate([np.ones((1, len(counts))), _resample(rng, len(counts), resamples)])
    found = drawn @ table
    return tuple(_estimate(column) for column in (found[:, :-1] / found[:, -1:]).T)


def group_means(
    values: Doubles,
    groups: Sequence[int] | Ints,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Estimate, ...]:
    """Estimate the mean of each column as `means` does, but every group weighs the same."""
    sums, counts = _by_group(values, groups)
    of_groups = sums / counts[:, None]
    return means(of_groups, np.arange(len(of_groups)), seed=seed, resamples=resamples)


def auroc(
    positives: Doubles,
    positive_groups: Sequence[int] | Ints,
    negatives: Doubles,
    negative_groups: Sequence[int] | Ints,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Estimate how often a positive lies above a negative, ties counting half.

    Groups are resampled on either side. What is no number counts as highest of all.
    """
    high, low = (np.where(np.isnan(side), np.inf, side) for side in (positives, negatives))
    # Pairs are summed by group: what is resampled are groups.
    above = np.zeros((len(np.unique(positive_groups)), len(np.unique(negative_groups))))
    mine = np.unique(positive_groups, return_inverse=True)[1].ravel()
    theirs = np.unique(negative_groups, return_inverse=True)[1].ravel()
    for group, value in zip(mine.tolist(), high.tolist(), strict=True):
        won = (value > low) + 0.5 * (value == low)
        above[group] += np.bincount(theirs, weights=won, minlength=above.shape[1])
    rng = np.random.default_rng(seed)
    first, second = (
        np.concatenate([np.ones((1, count)), _resample(rng, count, resamples)])
        for count in above.shape
    )
    pairs = (first @ np.bincount(mine)) * (second @ np.bincount(theirs))
    return _estimate(np.einsum("rp,pn,rn->r", first, above, second, optimize=True) / pairs)


def perfect_ece(
    scores: NDArray[np.floating],
    groups: Sequence[int] | Ints,
    *,
    seed: int = 0,
    draws: int = 200,
) -> float:
    """Mean ECE of these very scores if they were calibrated perfectly: what few rows come to.

    Labels are drawn from the scores; rows of one group, which share their label, are drawn with
    one random number.
    """
    group = np.unique(groups, return_inverse=True)[1].ravel()
    predicted, confidence = scores.argmax(1), scores.max(1)
    below = np.cumsum(scores, axis=1)[np.arange(len(scores)), predicted] - confidence
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    rng = np.random.default_rng(seed)
    total = 0.0
    for _ in range(draws):
        drawn = rng.random(int(group.max()) + 1)[group]
        hits = (drawn >= below) & (drawn < below + confidence)
        total += float(np.abs(np.bincount(bins, weights=hits - confidence)).sum())
    return total / (draws * len(scores))


def _by_group(values: Doubles, groups: Sequence[int] | Ints) -> tuple[Doubles, Doubles]:
    """Sum rows by group: ``[groups, columns]``, and how many rows each group has."""
    group = np.unique(groups, return_inverse=True)[1].ravel()
    sums = np.zeros((int(group.max()) + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return sums, np.bincount(group).astype(np.float64)


def _resample(rng: np.random.Generator, groups: int, resamples: int) -> Doubles:
    """Draw groups with replacement: how often each is in each sample ``[resamples, groups]``."""
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    return drawn.astype(np.float64)
