"""Steps of a loop that wait to be scored together, where nobody has to hear of each at once.

A forward leaves nothing of Python or of the heads in the processor's caches. What is done for many
steps in a row is done while it is warm, and the heads are read from memory once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

import torch
from torch import Tensor

AT_ONCE = 16
"""Steps that are scored together."""
WAIT_S = 2.0
"""Longest time for which a step waits for later ones; then it is scored with the next."""


class Waiting:
    """The steps of the running turn that are not scored yet, oldest first.

    Attributes:
        is_told: whether some of them are just being told; a plugin may ask for the trace meanwhile.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._steps: list[tuple[Sequence[Tensor], Sequence[Tensor]]] = []
        self._since_s = 0.0
        self.is_told = False

    def __len__(self) -> int:
        """Count them."""
        return len(self._steps)

    def add(self, states: Sequence[Tensor], extra: Sequence[Tensor]) -> None:
        """Take a step: its states, for each layer ``[rows, 1, d_model]``, and what is to be fetched
        with its scores, ``[rows]`` or ``[rows, 1]`` each."""
        if not self._steps:
            self._since_s = monotonic()
        self._steps.append((states, extra))

    @property
    def is_due(self) -> bool:
        """Whether they have waited long enough."""
        return len(self._steps) >= AT_ONCE or monotonic() - self._since_s >= WAIT_S

    def together(self) -> tuple[list[Tensor], list[Tensor]]:
        """Give the states, for each layer ``[rows, steps, d_model]``, and what is to be fetched,
        ``[steps, …]`` each."""
        states, extra = zip(*self._steps, strict=True)
        return (
            [torch.cat(layer, 1) for layer in zip(*states, strict=True)],
            [torch.stack(of) for of in zip(*extra, strict=True)],
        )

    @contextmanager
    def telling(self) -> Iterator[Iterator[int]]:
        """Count through them; each that was begun waits no more, and what an error or Ctrl+C keeps
        back waits on."""
        steps, self._steps, self.is_told = self._steps, [], True
        begun = 0

        def places() -> Iterator[int]:
            nonlocal begun
            for place in range(len(steps)):
                begun = place + 1
                yield place

        try:
            yield places()
        finally:
            self._steps, self.is_told = steps[begun:], False
