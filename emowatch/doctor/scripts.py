"""What a model is made to say under examination: logits processors that write its reply for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BEAMS: Mapping[int, tuple[tuple[float, float], tuple[float, float]]] = {
    0: ((-0.1, -1.0), (-0.1, -1.0)),
    1: ((-9.0, -9.5), (-0.1, -0.2)),  # both go on from the second
    2: ((-3.0, -3.5), (-0.1, -9.0)),  # the second overtakes the first
}
"""For each step, what it is worth to go on with the first or the second of two tokens: for a beam
that said the first of the step before, and for one that said the second. The search must throw a
beam away, and change the order of the others."""


class Unrepeated:
    """A logits processor that lets no token be said that is in the text already, or is special."""

    def __init__(self, special: Sequence[int]) -> None:
        """Take the tokens that are never to be said."""
        self._special = list(special)

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Forbid them; where none is left, forbid the special ones and the last alone."""
        for said in (ids, ids[:, -1:]):
            left = logits.scatter(1, said, -torch.inf)
            left[:, self._special] = -torch.inf
            if bool(torch.isfinite(left).any(1).all()):
                return left
        return logits


class Script:
    """A logits processor that lets each row say what is written for it."""

    def __init__(self, columns: int, *replies: Sequence[int]) -> None:
        """Take the columns of the prompt, and a reply for each row in turn."""
        self._columns = columns
        self._replies = replies

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Make the next token of each row by far the likeliest; after the last, change nothing."""
        likely = logits.clone()
        for row in range(len(ids)):
            reply = self._replies[row % len(self._replies)]
            step = ids.shape[1] - self._columns
            if step < len(reply):
                # Not the only one possible: candidates that are not would never be proposed.
                likely[row, reply[step]] += 1e4
        return likely


class Branches:
    """A logits processor that leads a beam search through `BEAMS`."""

    def __init__(self, columns: int, tokens: Sequence[int]) -> None:
        """Take the columns of the prompt, and two tokens for each step."""
        self._columns = columns
        self._tokens = tokens

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Give each row's two tokens their worth, and the others next to none."""
        step = ids.shape[1] - self._columns
        two = torch.tensor(self._tokens[2 * step : 2 * step + 2], device=scores.device)
        second = self._tokens[2 * step - 1] if step else None
        written = torch.full_like(scores, -1e4)
        for row, token in enumerate(ids[:, -1].tolist()):
            written[row, two] = written.new_tensor(BEAMS[step][token == second])
        return written
