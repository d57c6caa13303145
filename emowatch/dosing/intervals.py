"""Intervals of means over replies, by bootstrap: tokens of one reply are alike, replies are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]
RESAMPLES = 2_000


def interval(values: Floats, seed: int = 0) -> Interval:
    """Give the 95 % interval of the mean of ``[replies]``."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)
