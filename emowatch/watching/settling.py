"""From scored states to told tokens: which token each belongs to, as soon as that is settled.

Knows columns, turns and scores; nothing of forwards or heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from emowatch.errors import UnsupportedError
from emowatch.model.tap import Tap
from emowatch.records import Floats
from emowatch.steering import Mixer, Wish
from emowatch.watching.held import Beams
from emowatch.watching.telling import Teller
from emowatch.watching.turns import RunningTurn


class Settler:
    """Tells of each token once it is sure to be kept, and adds what plugins wish for."""

    def __init__(self, tap: Tap, teller: Teller) -> None:
        """Begin with nothing added."""
        self._tap = tap
        self._teller = teller
        self._mixer = Mixer()

    def tell_columns(
        self, turn: RunningTurn, scores: Sequence[Floats], first: int, last: int
    ) -> None:
        """Tell of a prompt's tokens, and tell of or hold the states after them.

        Args:
            turn: the running turn.
            scores: per bank ``[layers, rows * columns, labels]`` of the columns from `first` up
                to `last`, row by row.
            first: the first column that had not been read before.
            last: one past the last.
        """
        width, end = last - first, turn.prompt.columns - 1
        for token in turn.prompt.tokens(first, min(last, end), width, turn.sources):
            self._teller.tell_token(
                scores,
                token.place,
                turn=turn.index,
                sequence=token.sequence,
                position=token.position,
                offset=None,
                segment=token.segment,
            )
        turn.seen = min(last, end)
        if last <= end:
            return
        speaking = max(first, end) - first  # the first state that speaks of a reply token
        if turn.beams is not None:
            turn.seen = last
            turn.beams.hold([np.ascontiguousarray(of[:, width - 1 :: width]) for of in scores])
        elif turn.loop == "assisted":
            turn.candidates.hold(scores, range(speaking, width))
        else:
            turn.seen = last
            newest = [of[:, width - 1 :: width] for of in scores]
            self.tell_step(turn, newest, turn.begin_reply())

    def tell_step(
        self, turn: RunningTurn, scores: Sequence[Floats], speaking: Sequence[int]
    ) -> None:
        """Tell of one state of each row that speaks, from scores ``[layers, rows, labels]``."""
        wishes: list[Wish] = []
        for row in speaking:
            wishes += self._tell_reply(turn, row, scores, row)
        self._steer(turn, wishes)

    def tell_candidates(self, turn: RunningTurn, ids: Tensor) -> None:
        """Tell of the candidates that are among the kept ``[rows, columns]``; drop the others."""
        said = turn.rows[0].text.states
        for token in ids[0, turn.prompt.columns - turn.base + said :].tolist():
            self.tell_kept(turn, token)
        turn.candidates.reject()

    def tell_kept(self, turn: RunningTurn, token: int) -> None:
        """Tell of the oldest state that is held, which produced this token."""
        held = turn.candidates.next()
        if held is None:
            return
        row = turn.rows[0]
        row.text.states += 1
        turn.seen = turn.prompt.columns + row.offset
        self._steer(turn, self._tell_reply(turn, 0, *held))
        row.take(token)

    def tell_beams(self, turn: RunningTurn, beams: Beams) -> bool:
        """Tell of the replies that a beam search returned, and whether it came to its end."""
        chosen = beams.chosen()
        if chosen is None:
            return False
        first = turn.prompt.columns - turn.base
        for sequence, (ids, steps) in enumerate(zip(*chosen, strict=True)):
            row = turn.rows[sequence]
            for token, held in zip(ids[first:].tolist(), beams.replay(steps), strict=False):
                row.text.states += 1
                self._steer(turn, self._tell_reply(turn, sequence, *held))
                row.take(token)
        return True

    def release(self, turn: RunningTurn) -> None:
        """Record that what was added to this turn's states is no more."""
        self._mix(turn, [])

    def _tell_reply(
        self, turn: RunningTurn, sequence: int, scores: Sequence[Floats], place: int
    ) -> list[Wish]:
        row = turn.rows[sequence]
        return self._teller.tell_token(
            scores,
            place,
            turn=turn.index,
            sequence=sequence,
            position=row.position,
            offset=row.offset,
            segment=row.segment,
        )

    def _steer(self, turn: RunningTurn, wishes: Sequence[Wish]) -> None:
        """Add what plugins wish for from the next forward on.

        Raises:
            UnsupportedError: for a loop whose states change after they were read.
        """
        if turn.cannot_steer and any(wish.strength for wish in wishes):
            raise UnsupportedError(
                f"Could not steer under {turn.cannot_steer}: its forwards read tokens that were "
                "steered already, or that are thrown away. Steer under greedy search or "
                "sampling with the cache."
            )
        if wishes or self._tap.steered:
            self._tap.steer(self._mix(turn, wishes))

    def _mix(self, turn: RunningTurn, wishes: Sequence[Wish]) -> dict[int, Tensor]:
        """Sum and cap wishes, and record what changed."""
        offsets = [row.offset for row in turn.rows]
        additions, changes = self._mixer.mix(wishes, turn.index, offsets)
        self._teller.tell_steering(changes)
        return additions
