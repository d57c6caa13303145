"""Scores whose tokens are not settled yet: candidates, and the rows of a beam search.

Knows places in arrays, nothing of states, heads or plugins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from emowatch.records import Floats

Place = tuple[Sequence[Floats], int]
"""Scores of each bank ``[layers, states, labels]``, and which of the states is meant."""


class Candidates:
    """States that read candidates, oldest first: those before the first rejected one count."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._waiting: deque[Place] = deque()

    def hold(self, scores: Sequence[Floats], places: Sequence[int]) -> None:
        """Hold the states of one forward; what was held before it was rejected."""
        self._waiting = deque((scores, place) for place in places)

    def next(self) -> Place | None:
        """Give out the oldest state, whose token was kept; `None` where none is held."""
        return self._waiting.popleft() if self._waiting else None

    def reject(self) -> None:
        """Drop what is held."""
        self._waiting.clear()


class Beams:
    """The scores of all rows of a beam search, step by step, until it has chosen."""

    def __init__(self, frame: FrameType) -> None:
        """Follow the search that runs in a frame, which is kept alive to see its choice.

        All that it holds is kept with it, the cache too, until the turn ends.
        """
        self._frame = frame
        self._steps: list[Sequence[Floats]] = []

    def hold(self, scores: Sequence[Floats]) -> None:
        """Hold one step, per bank ``[layers, rows, labels]``."""
        self._steps.append(scores)

    def chosen(self) -> tuple[NDArray[np.integer], NDArray[np.integer]] | None:
        """Read what the search returned.

        Returns:
            The sequences ``[returned, columns]`` and for each of their reply tokens the row whose
            state produced it, ``[returned, steps]``, -1 after the end; `None` for a search that
            did not come to its end.
        """
        variables = self._frame.f_locals
        if "output_length" not in variables:
            return None
        return variables["sequences"].cpu().numpy(), variables["beam_indices"].cpu().numpy()

    def replay(self, rows: NDArray[np.integer]) -> Iterator[Place]:
        """Give out the states that produced one sequence, from the row of each step ``[steps]``."""
        for scores, row in zip(self._steps, rows.tolist(), strict=False):
            if row < 0:
                return
            yield scores, row
