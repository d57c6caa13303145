"""Where figures of heads lie that were fitted to shuffled labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emowatch.workshop.metrics import Estimate

NORMAL = 1.96
"""Standard deviations on either side within which 95 % of a normal distribution lie."""


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
    mean, spread = float(figures.mean()), NORMAL * float(figures.std(ddof=1))
    return Estimate(mean, mean - spread, mean + spread)
