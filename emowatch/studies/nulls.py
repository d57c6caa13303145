"""Where figures of heads lie that were fitted to shuffled labels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from emowatch.workshop.metrics import Estimate

SHARE = (0.0, 1.0)
"""Bounds of an accuracy."""


def spread_of(
    figures: NDArray[np.float64], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate | None:
    """Give the mean over orders of the labels, and where 95 % of such figures would lie.

    A bootstrap over test texts would see one order, and one order alone can be far from chance.

    Args:
        figures: ``[orders]``.
        bounds: between which such figures lie, as accuracies do between 0 and 1.

    Returns:
        `None` for fewer than two orders, which tell no spread.
    """
    if len(figures) < 2:
        return None
    n = len(figures)
    wide = float(t.ppf(0.975, n - 1)) * (1 + 1 / n) ** 0.5  # of a further order, n being few
    mean, spread = float(figures.mean()), wide * float(figures.std(ddof=1))
    return Estimate(mean, max(bounds[0], mean - spread), min(bounds[1], mean + spread))
