"""Which tokens of a session a baseline speaks of, each of them once.

A prompt repeats what was said before: of what stands in prompts, only the newest stretch of a
segment counts, as the message that the user has just written, and it counts when the reply begins.
"""

from __future__ import annotations

from collections.abc import Sequence

from emowatch.records import Segment, TokenScore

OF_PROMPTS: tuple[Segment, ...] = ("system", "user")
"""Segments that are followed where they stand in prompts; the others where the model speaks."""


class Following:
    """Gives the tokens of one segment in one row of a session, in order."""

    def __init__(self, segment: Segment) -> None:
        """Begin before the first token."""
        self.segment: Segment = segment
        self._message: list[TokenScore] = []
        """The newest stretch of the segment in the prompt that is being read."""

    def take(self, score: TokenScore) -> Sequence[TokenScore]:
        """Take the next token of the row; give those that count from here on.

        What the model says counts at once; what stands in a prompt, with the first state that
        produces a reply token.
        """
        if score.offset is None:
            if score.segment == self.segment and self.segment in OF_PROMPTS:
                last = self._message[-1] if self._message else None
                if last and (last.turn, last.position + 1) != (score.turn, score.position):
                    self._message = []
                self._message.append(score)
            return ()
        message, self._message = self._message, []
        if self.segment in OF_PROMPTS:
            return [token for token in message if token.turn == score.turn]
        return (score,) if score.segment == self.segment else ()
