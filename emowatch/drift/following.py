"""Which tokens of a session a baseline speaks of, each of them once.

A prompt repeats what was said before: of what stands in prompts, only the newest stretch of a
segment counts, as the message that the user has just written, and it counts when the reply begins.
Where the next prompt has no newer one, as when a reply is made anew or a tool has answered, the
same stretch stands at the same place with the same scores, and does not count again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emowatch.records import Segment, TokenScore

OF_PROMPTS: tuple[Segment, ...] = ("system", "user")
"""Segments that are followed where they stand in prompts; the others where the model speaks."""
ALIKE = 0.01
"""Difference up to which two scores are of the same text, read in another batch."""


class Following:
    """Gives the tokens of one segment in one row of a session, in order."""

    def __init__(self, segment: Segment) -> None:
        """Begin before the first token."""
        self.segment: Segment = segment
        self._message: list[TokenScore] = []
        """The newest stretch of the segment in the prompt that is being read."""
        self._counted: list[TokenScore] = []
        """The stretch that counted last."""

    def take(self, score: TokenScore) -> Sequence[TokenScore]:
        """Take the next token of the row; give those that count from here on.

        What the model says counts at once; what stands in a prompt, with the first state that
        produces a reply token.
        """
        if self.segment not in OF_PROMPTS:
            spoken = score.offset is not None and score.segment == self.segment
            return (score,) if spoken else ()
        if score.offset is not None:
            return self._counting(score.turn)
        if score.segment == self.segment:
            last = self._message[-1] if self._message else None
            if last and (last.turn, last.position + 1) != (score.turn, score.position):
                self._message = []
            self._message.append(score)
        return ()

    def _counting(self, turn: int) -> Sequence[TokenScore]:
        """Give the newest stretch when the reply of its turn begins, once."""
        message, self._message = self._message, []
        if not message or message[0].turn != turn or _is_same(message, self._counted):
            return ()
        self._counted = message
        return message


def _is_same(one: Sequence[TokenScore], other: Sequence[TokenScore]) -> bool:
    return (
        len(one) == len(other)
        and one[0].position == other[0].position
        and all(
            np.allclose(a.scores.array, b.scores.array, rtol=0, atol=ALIKE, equal_nan=True)
            for a, b in zip(one, other, strict=True)
        )
    )
