"""How far classes of points lie apart, as numbers with intervals and a null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import davies_bouldin_score, pairwise_distances, silhouette_samples

from emowatch.workshop.metrics import Estimate

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
RESAMPLES = 1000
PERMUTATIONS = 100
MOST = 2_000
"""Points of which all pairs are measured; of more, a sample."""


@dataclass(frozen=True, slots=True)
class Separation:
    """How far the classes are apart.

    A null is the median of permuted labels, with where 95 % of them lie: Davies-Bouldin has no
    upper bound, and its mean may lie beyond them all.
    """

    silhouette: Estimate
    davies_bouldin: Estimate
    silhouette_null: Estimate
    davies_bouldin_null: Estimate


def separation(
    points: Doubles, labels: Ints, groups: Sequence[int] | Ints, *, seed: int = 0
) -> Separation:
    """Measure points ``[points, dimensions]`` of at least two classes.

    The silhouette's interval resamples the points' own values: in a resample of the points
    themselves, copies at distance 0 would pull it up.

    Args:
        points: ``[points, dimensions]``.
        labels: class of each point.
        groups: points of one group are resampled together.
        seed: of the sample, the bootstrap and the permutations.
    """
    rng = np.random.default_rng(seed)
    group = np.asarray(groups)
    if len(points) > MOST:
        taken = rng.permutation(len(points))[:MOST]
        points, labels, group = points[taken], labels[taken], group[taken]
    distances = pairwise_distances(points)

    def silhouettes(of: Ints) -> Doubles:
        found: Doubles = silhouette_samples(distances, of, metric="precomputed")
        return found

    own = silhouettes(labels)
    drawn = _resamples(group, rng)
    resampled = [
        davies_bouldin_score(points[take], labels[take])
        for take in drawn[: RESAMPLES // 5]
        if len(np.unique(labels[take])) > 1
    ]
    permuted = [rng.permutation(labels) for _ in range(PERMUTATIONS)]
    return Separation(
        silhouette=_estimate(float(own.mean()), np.array([own[take].mean() for take in drawn])),
        davies_bouldin=_estimate(davies_bouldin_score(points, labels), np.array(resampled)),
        silhouette_null=_spread(np.array([silhouettes(of).mean() for of in permuted])),
        davies_bouldin_null=_spread(
            np.array([davies_bouldin_score(points, of) for of in permuted])
        ),
    )


def _resamples(groups: Ints, rng: np.random.Generator) -> list[Ints]:
    """Draw as many groups as there are, again and again, and give the points of each draw."""
    numbers = np.unique(groups, return_inverse=True)[1].ravel()
    members = np.split(np.argsort(numbers, kind="stable"), np.bincount(numbers).cumsum()[:-1])
    return [
        np.concatenate([members[n] for n in rng.integers(len(members), size=len(members))])
        for _ in range(RESAMPLES)
    ]


def _estimate(value: float, resampled: Doubles) -> Estimate:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Estimate(float(value), float(low), float(high))


def _spread(values: Doubles) -> Estimate:
    return _estimate(float(np.median(values)), values)
