"""Where figures of heads lie that were fitted to shuffled labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from emowatch.workshop.metrics import Estimate


def spread_of(figures: NDArray[np.float64]) -> Estimate | None:
    """Give the mean over orders of the labels, and where 95 % of such figures would lie.

    A bootstrap over test texts would see one order, and one order alone can be far from chance.

    Args:
        figures: ``[orders]``.

    Returns:
        `None` for fewer than two orders, which tell no spread.
    """
    if len(figures) < 2:
        return None
    n = len(figures)
    wide = float(t.ppf(0.975, n - 1)) * (1 + 1 / n) ** 0.5  # of a further order, n being few
    mean, spread = float(figures.mean()), wide * float(figures.std(ddof=1))
    return Estimate(mean, mean - spread, mean + spread)
