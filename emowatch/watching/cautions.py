"""Say on stderr, once a session, what makes scores worth less than they look."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from emowatch.records import Floats


class Cautions:
    """What was said already, so that it is said once."""

    def __init__(self, context: int | None) -> None:
        """Begin; `context` is the longest text of the model in tokens, where it says so."""
        self._context = context
        self._has_numbers = True

    def heed(self, scores: Sequence[Floats], columns: int) -> None:
        """Look at the scores of one forward.

        Args:
            scores: per bank ``[rows]``: one score of each row's newest state at the last layer. A
                state that is no number spreads to all labels, later layers and later tokens.
            columns: how long the text is by now.
        """
        if self._has_numbers and any(np.isnan(of).any() for of in scores):
            self._has_numbers = False
            _say(
                "the model computes NaN, and its scores are none from here on; no alarm will "
                "ring. `emowatch doctor` finds damaged weights."
            )
        if self._context is not None and columns > self._context:
            _say(
                f"the text is longer than the model's context of {self._context} tokens; what it "
                "feels beyond is not what it was trained for."
            )
            self._context = None


def _say(sentence: str) -> None:
    sys.stderr.write(f"emowatch: {sentence}\n")
