"""EWMA and CUSUM of standardised scores, for all labels of one bank at once.

EWMA: Roberts 1959, ``e = w z + (1 - w) e``. CUSUM: Page 1954, ``c = max(0, c + z - k)``, one for
each direction. Both are for a slow change of the mean: the first forgets, the second adds up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WEIGHT = 0.1
"""Of the newest token in the EWMA, which so looks back over some ten to twenty tokens."""
SLACK = 0.5
"""Of the CUSUM: half the change, in standard deviations, that is to be found soonest."""
CHARTS = 4
"""EWMA up and down, CUSUM up and down."""


_DECAY = np.array([[1 - WEIGHT], [1 - WEIGHT], [1.0], [1.0]])
_GAIN = np.array([[WEIGHT], [-WEIGHT], [1.0], [-1.0]])
_LOSS = np.array([[0.0], [0.0], [SLACK], [SLACK]])
_FLOOR = np.array([[-np.inf], [-np.inf], [0.0], [0.0]])
"""All four charts are ``max(floor, decay · value + gain · z - loss)``."""


@dataclass(slots=True)
class Charts:
    """The running charts of one row, ``[charts, labels]``."""

    means: Floats
    spreads: Floats
    values: Floats = field(init=False)
    onsets: NDArray[np.int64] = field(init=False)
    """For each CUSUM and label, how many tokens ago it last stood at zero ``[2, labels]``."""

    def __post_init__(self) -> None:
        """Begin at rest."""
        self.values = np.zeros((CHARTS, len(self.means)))
        self.onsets = np.zeros((2, len(self.means)), dtype=np.int64)

    @property
    def ewma(self) -> Floats:
        """The moving average of each label, in standard deviations ``[labels]``."""
        upward: Floats = self.values[0]
        return upward

    def take(self, scores: NDArray[np.floating]) -> Floats:
        """Take the scores ``[labels]`` of the next token; give the statistics ``[charts, labels]``.

        A token whose scores are no numbers changes nothing.
        """
        z = (scores - self.means) / self.spreads
        if not math.isfinite(z @ z):
            return self.values
        values = self.values
        values *= _DECAY
        values += _GAIN * z
        values -= _LOSS
        np.maximum(values, _FLOOR, out=values)
        self.onsets += 1
        self.onsets *= values[2:] > 0
        return values

    def restart(self) -> None:
        """Bring all charts to rest."""
        self.values[:] = 0
        self.onsets[:] = 0
