"""How often verdicts are right: shares with 95 % intervals, by label, and what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from emowatch.workshop.metrics import Estimate

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
RESAMPLES = 1000
PERMUTATIONS = 1000
CHUNK = 50
"""Resamples in memory at once."""
NONE = -1
"""Stands for no verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How verdicts agree with labels; a text without a verdict counts as a miss."""

    n: int
    coverage: Estimate
    """Share of the texts with a verdict."""
    accuracy: Estimate
    """Of all texts."""
    accuracy_of_covered: Estimate | None
    """Of the texts with a verdict; `None` where there is none."""
    recalls: tuple[Estimate | None, ...]
    """By label; `None` for a label without texts."""
    precisions: tuple[Estimate | None, ...]
    """By label; `None` for a label that no verdict names."""
    named: tuple[int, ...]
    """By label, how many verdicts name it."""
    null: Estimate
    """Accuracy of all texts with the verdicts permuted over them: the mean, and where 95 % lie."""
    recall_nulls: tuple[Estimate | None, ...]
    """By label, the same of recall."""
    null_of_covered: Estimate | None
    """`null` of the texts with a verdict, permuted among themselves: which texts have one may hang
    on their labels. `None` where there is none."""


def agreement(
    labels: Sequence[int],
    verdicts: Sequence[int | None],
    groups: Sequence[int],
    n_labels: int,
    *,
    seed: int = 0,
) -> Agreement:
    """Compare verdicts with labels.

    Args:
        labels: class of each text.
        verdicts: class that each text was given, or `None`.
        groups: texts of one group are resampled together.
        n_labels: number of classes.
        seed: of the bootstrap and the permutations.
    """
    true = np.asarray(labels, dtype=np.int64)
    given = np.array([NONE if one is None else one for one in verdicts], dtype=np.int64)
    group = np.asarray(groups)
    hits, covered = given == true, given != NONE

    def of(rows: NDArray[np.bool_]) -> Estimate | None:
        return share(hits[rows], group[rows], seed=seed)

    coverage, accuracy = share(covered, group, seed=seed), share(hits, group, seed=seed)
    if coverage is None or accuracy is None:
        raise ValueError("there are no texts to compare")
    null, recall_nulls = _permuted(true, given, n_labels, seed)
    of_covered = None
    if covered.any():
        of_covered, _ = _permuted(true[covered], given[covered], n_labels, seed)
    return Agreement(
        n=len(true),
        coverage=coverage,
        accuracy=accuracy,
        accuracy_of_covered=of(covered),
        recalls=tuple(of(true == label) for label in range(n_labels)),
        precisions=tuple(of(given == label) for label in range(n_labels)),
        named=tuple(np.bincount(given[covered], minlength=n_labels).tolist()),
        null=null,
        recall_nulls=recall_nulls,
        null_of_covered=of_covered,
    )


def share(hits: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> Estimate | None:
    """Estimate the share of hits among ``[rows]``; `None` without rows.

    The interval resamples groups. Where all rows are alike every resample is, too, and would
    claim certainty; there it is the exact one of as many trials as there are groups (Clopper and
    Pearson 1934).
    """
    rows = np.asarray(hits, dtype=np.float64)
    if not len(rows):
        return None
    if rows.min() == rows.max():
        n = len(np.unique(np.asarray(groups)))
        found = binomtest(n if rows[0] else 0, n).proportion_ci(0.95, method="exact")
        return Estimate(float(rows[0]), float(found.low), float(found.high))
    return mean(rows, groups, seed=seed)


def mean(values: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> Estimate:
    """Estimate the mean of ``[rows]`` with a 95 % interval, by bootstrap over groups."""
    rows = np.asarray(values, dtype=np.float64)
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.stack([np.bincount(group, rows), np.bincount(group)], axis=1)  # [groups, 2]
    n, rng = len(sums), np.random.default_rng(seed)
    resampled = np.concatenate(
        [sums[rng.integers(n, size=(CHUNK, n))].sum(1) for _ in range(RESAMPLES // CHUNK)]
    )  # [resamples, 2]
    low, high = np.quantile(resampled[:, 0] / resampled[:, 1], (0.025, 0.975))
    return Estimate(float(rows.mean()), float(low), float(high))


def _permuted(
    true: Ints, given: Ints, n_labels: int, seed: int
) -> tuple[Estimate, tuple[Estimate | None, ...]]:
    rng = np.random.default_rng(seed)
    totals = np.bincount(true, minlength=n_labels)
    hits = np.empty((PERMUTATIONS, n_labels))
    for row in hits:
        row[:] = np.bincount(true[rng.permutation(given) == true], minlength=n_labels)
    recalls = [
        _spread(hits[:, label] / total) if total else None for label, total in enumerate(totals)
    ]
    return _spread(hits.sum(1) / len(true)), tuple(recalls)


def _spread(values: Doubles) -> Estimate:
    low, high = np.quantile(values, (0.025, 0.975))
    return Estimate(float(values.mean()), float(low), float(high))
