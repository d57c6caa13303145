"""EWMA and CUSUM of standardised scores, for all labels of one bank.

EWMA: Roberts 1959, ``e = w z + (1 - w) e``. CUSUM: Page 1954, ``c = max(0, c + z - k)``, one for
each direction. Both are for a slow change of the mean: the first forgets, the second adds up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WEIGHT = 0.1
"""Of the newest token in the EWMA, which so looks back over some ten to twenty tokens."""
SLACK = 0.5
"""Of the CUSUM: half the change, in standard deviations, that is to be found soonest."""
CHARTS = 4
"""EWMA up and down, CUSUM up and down."""


class Charts:
    """The running charts of one row.

    Attributes:
        ewma: the moving average of each label, in standard deviations.
    """

    def __init__(
        self,
        means: Sequence[float] | Floats,
        spreads: Sequence[float] | Floats,
        limits: Sequence[Sequence[float]] | Floats | None = None,
    ) -> None:
        """Begin at rest.

        Args:
            means: of each label's scores.
            spreads: their standard deviations.
            limits: of each chart and label, what its value is to pass; by default nothing does.
        """
        # Numbers of Python's own: NumPy takes three times as long for seven labels at a time.
        n = len(means)
        self.ewma = [0.0] * n
        self._up, self._down = [0.0] * n, [0.0] * n
        self._up_rested, self._down_rested = [0] * n, [0] * n
        """Of each label the number of the token at which its CUSUM last stood at zero."""
        self._tokens = 0
        every = np.full((CHARTS, n), math.inf) if limits is None else np.array(limits, float)
        self._fixed = [
            (place, float(mean), 1 / float(spread), *of)
            for place, (mean, spread, of) in enumerate(
                zip(means, spreads, every.T.tolist(), strict=True)
            )
        ]

    @property
    def values(self) -> Floats:
        """What the charts stand at ``[charts, labels]``."""
        return np.array([self.ewma, [-e for e in self.ewma], self._up, self._down])

    @property
    def onsets(self) -> NDArray[np.int64]:
        """For each CUSUM and label, how many tokens ago it last stood at zero ``[2, labels]``."""
        return self._tokens - np.array([self._up_rested, self._down_rested])

    def take(self, scores: Sequence[float]) -> bool | None:
        """Take the scores ``[labels]`` of the next token; tell whether any chart is past its limit.

        A token whose scores are no numbers changes nothing, and tells nothing.
        """
        if not math.isfinite(sum(scores)):
            return None
        self._tokens += 1
        ewma, ups, downs, passes = self.ewma, self._up, self._down, False
        for score, (place, mean, scale, high, low, most_up, most_down) in zip(
            scores, self._fixed, strict=True
        ):
            z = (score - mean) * scale
            ewma[place] = e = ewma[place] + WEIGHT * (z - ewma[place])
            up, down = ups[place] + z - SLACK, downs[place] - z - SLACK
            if up <= 0:
                up, self._up_rested[place] = 0.0, self._tokens
            if down <= 0:
                down, self._down_rested[place] = 0.0, self._tokens
            ups[place], downs[place] = up, down
            if e > high or -e > low or up > most_up or down > most_down:
                passes = True
        return passes

    def restart(self) -> None:
        """Bring all charts to rest."""
        n = len(self.ewma)
        self.ewma, self._up, self._down = [0.0] * n, [0.0] * n, [0.0] * n
        self._up_rested, self._down_rested = [self._tokens] * n, [self._tokens] * n
