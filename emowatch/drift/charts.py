"""EWMA and CUSUM of standardised scores, for all labels of one bank at once.

EWMA: Roberts 1959, ``e = w z + (1 - w) e``. CUSUM: Page 1954, ``c = max(0, c + z - k)``, one for
each direction. Both are for a slow change of the mean: the first forgets, the second adds up.
"""

from __future__ import annotations

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


@dataclass(slots=True)
class Charts:
    """The running charts of one row, ``[charts, labels]``."""

    means: Floats
    spreads: Floats
    values: Floats = field(init=False)
    ewma: Floats = field(init=False)
    onsets: NDArray[np.int64] = field(init=False)
    """For each CUSUM and label, how many tokens ago it last stood at zero ``[2, labels]``."""

    def __post_init__(self) -> None:
        """Begin at rest."""
        labels = len(self.means)
        self.values = np.zeros((CHARTS, labels))
        self.ewma = np.zeros(labels)
        self.onsets = np.zeros((2, labels), dtype=np.int64)

    def take(self, scores: Floats) -> Floats:
        """Take the scores ``[labels]`` of the next token; give the statistics ``[charts, labels]``.

        A token whose scores are no numbers changes nothing.
        """
        z = (scores - self.means) / self.spreads
        if not np.isfinite(z).all():
            return self.values
        self.ewma += WEIGHT * (z - self.ewma)
        self.values[0] = self.ewma
        np.negative(self.ewma, out=self.values[1])
        sums = self.values[2:]
        sums[0] += z - SLACK
        sums[1] -= z + SLACK
        np.maximum(sums, 0.0, out=sums)
        self.onsets += 1
        self.onsets[sums == 0] = 0
        return self.values

    def restart(self) -> None:
        """Bring all charts to rest."""
        self.values[:] = 0
        self.ewma[:] = 0
        self.onsets[:] = 0
