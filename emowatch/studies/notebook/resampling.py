"""Intervals for many figures of the same texts: one bootstrap over groups, drawn once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emowatch.workshop.metrics import RESAMPLES, Estimate

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


class Resampling:
    """Draws texts again, group by group; every figure that is made of sums follows from it."""

    def __init__(self, groups: Ints, *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        """Draw for texts that belong to `groups` ``[texts]``."""
        names, self._group = np.unique(groups, return_inverse=True)
        n = len(names)
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        self._counts = np.vstack([np.ones(n), drawn])  # [1 + resamples, groups]

    def sums(self, values: Doubles) -> Doubles:
        """Sum values ``[…, texts]`` as they are and in each resample: ``[…, 1 + resamples]``."""
        flat = values.reshape(-1, values.shape[-1])
        by_group = np.zeros((len(flat), self._counts.shape[1]))
        for row, one in zip(by_group, flat, strict=True):
            row += np.bincount(self._group, one, minlength=len(row))
        found: Doubles = by_group @ self._counts.T
        return found.reshape(*values.shape[:-1], -1)

    def means(self, values: Doubles) -> Doubles:
        """Take means ``[…, 1 + resamples]`` of values ``[…, texts]``; NaN counts for nothing."""
        known = ~np.isnan(values)
        held = self.sums(known.astype(np.float64))
        total = self.sums(np.where(known, values, 0.0))
        return np.divide(total, held, out=np.full_like(total, np.nan), where=held > 0)

    def mean(self, values: Doubles) -> Estimate:
        """Estimate the mean of values ``[texts]``."""
        return estimate(self.means(values))


def estimate(samples: Doubles) -> Estimate:
    """Take the first of ``[1 + resamples]`` as the figure, and the rest for its interval."""
    rest = samples[1:][~np.isnan(samples[1:])]
    if not len(rest):
        return Estimate(float(samples[0]), float("nan"), float("nan"))
    low, high = np.quantile(rest, (0.025, 0.975))
    return Estimate(float(samples[0]), float(low), float(high))


def basic(samples: Doubles) -> Estimate:
    """Estimate with the interval mirrored at the figure and stretched to hold it, by the basic
    bootstrap: for figures such as R² whose resamples lie to one side."""
    found = estimate(samples)
    low, high = 2 * found.value - found.high, 2 * found.value - found.low
    return Estimate(found.value, min(found.value, low), max(found.value, high))
