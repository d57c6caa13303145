"""EWMA and CUSUM of standardised scores, for all labels of one bank at once.

EWMA: Roberts 1959, ``e = w z + (1 - w) e``. CUSUM: Page 1954, ``c = max(0, c + z - k)``, one for
each direction. Both are for a slow change of the mean: the first forgets, the second adds up.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WEIGHT = 0.1
"""Of the newest token in the EWMA, which so looks back over some ten to twenty tokens."""
SLACK = 0.5
"""Of the CUSUM: half the change, in standard deviations, that is to be found soonest."""
CHARTS = 4
"""EWMA up and down, CUSUM up and down."""

_DECAY = (1 - WEIGHT, 1 - WEIGHT, 1.0, 1.0)
_GAIN = (WEIGHT, -WEIGHT, 1.0, -1.0)
_LOSS = (0.0, 0.0, SLACK, SLACK)
_FLOOR = (-np.inf, -np.inf, 0.0, 0.0)
"""All four charts are ``max(floor, decay · value + gain · z - loss)``."""


class Charts:
    """The running charts of one row.

    Attributes:
        values: ``[charts, labels]``.
    """

    def __init__(self, means: Floats, spreads: Floats) -> None:
        """Begin at rest, with what standardises the scores ``[labels]``."""
        # All charts of all labels lie in one row, and standardising is part of gain and loss: this
        # runs at every token, and each call of NumPy weighs as much as what it does.
        labels = len(means)
        self._decay, self._floor = np.repeat(_DECAY, labels), np.repeat(_FLOOR, labels)
        self._gain = np.repeat(_GAIN, labels) / np.tile(spreads, CHARTS)
        self._shift = -self._gain * np.tile(means, CHARTS) - np.repeat(_LOSS, labels)
        self._places = np.tile(np.arange(labels), CHARTS)
        self._flat = np.zeros(CHARTS * labels)
        self.values: Floats = self._flat.reshape(CHARTS, labels)
        self._sums = self._flat[2 * labels :]
        self._tokens = 0
        self._zero_at = np.zeros(2 * labels, dtype=np.int64)
        """Of each CUSUM and label the number of the token at which it last stood at zero."""

    @property
    def ewma(self) -> Floats:
        """The moving average of each label, in standard deviations ``[labels]``."""
        upward: Floats = self.values[0]
        return upward

    @property
    def onsets(self) -> NDArray[np.int64]:
        """For each CUSUM and label, how many tokens ago it last stood at zero ``[2, labels]``."""
        return (self._tokens - self._zero_at).reshape(2, -1)

    def take(self, scores: NDArray[np.floating]) -> Floats | None:
        """Take the scores ``[labels]`` of the next token; give the statistics ``[charts, labels]``.

        A token whose scores are no numbers changes nothing, and gives nothing.
        """
        if not math.isfinite(scores.dot(scores)):
            return None
        self._tokens += 1
        flat = self._flat
        flat *= self._decay
        change = scores.take(self._places) * self._gain
        change += self._shift
        flat += change
        np.maximum(flat, self._floor, out=flat)
        self._zero_at[self._sums <= 0] = self._tokens
        return self.values

    def restart(self) -> None:
        """Bring all charts to rest."""
        self._flat[:] = 0
        self._zero_at[:] = self._tokens
