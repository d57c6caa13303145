"""From scored states to told tokens: which token each belongs to, as soon as that is settled.

Knows columns, turns and scores; nothing of forwards or heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from emowatch.decoding import Decoding
from emowatch.errors import UnsupportedError
from emowatch.model.tap import Tap
from emowatch.records import Floats
from emowatch.steering import Ledger, Wish, edits_of
from emowatch.watching.cautions import tell_of_no_steering
from emowatch.watching.held import Beams
from emowatch.watching.telling import Teller
from emowatch.watching.turns import RunningTurn


class Settler:
    """Tells of each token once it is sure to be kept, and does what plugins wish for.

    Attributes:
        steers_by_token: whether more is done now than what is done throughout the turn.
    """

    def __init__(self, tap: Tap, teller: Teller) -> None:
        """Begin with nothing done."""
        self.steers_by_token = False
        self._tap = tap
        self._teller = teller
        self._ledger = Ledger()
        self._standing: list[Wish] = []
        """What is done throughout the running turn."""
        self._first = 0
        """First column of its reply."""

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

    def begin(self, turn: int, rows: int, decoding: Decoding, first: int) -> None:
        """Ask what is to be done throughout a turn, before its prompt is read.

        Args:
            turn: number of the turn.
            rows: of its prompt.
            decoding: the loop that runs it.
            first: first column of its reply.

        Raises:
            UnsupportedError: for a loop whose rows are chosen from, or that calls nobody.
        """
        self._standing = self._teller.wishes_of_turn(turn, rows)
        self._first = first
        if (decoding.loop == "beams" or decoding.compiled) and edits_of(self._standing, rows):
            raise UnsupportedError(
                f"Could not steer under {'beam search' if decoding.frame else 'compiled forwards'}"
                ". Steer under greedy search, sampling or assisted decoding, and pass "
                "disable_compile=True to generate where it compiles."
            )
        of_prompt = [wish for wish in self._standing if wish.positions == "all"]
        # What begins before the prompt is told apart from what begins with the reply.
        for wishes, offset in ((of_prompt, None), (self._standing, 0)):
            changes = self._ledger.replace(wishes, turn, [offset] * rows)
            self._teller.tell_steering(changes)
        self._put(self._standing, rows)

    def release(self, turn: RunningTurn) -> None:
        """Record that what was done to this turn's states is no more."""
        self._standing = []
        self.steers_by_token = False
        self._record(turn, [])

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
        """Do what plugins wish for from the next forward on, beside what is done all along.

        Raises:
            UnsupportedError: for a loop whose states change after they were read.
        """
        if turn.cannot_steer and any(wish.does_something and not wish.shadow for wish in wishes):
            raise UnsupportedError(
                f"Could not steer token by token under {turn.cannot_steer}: its forwards read "
                "tokens that were steered already, or that are thrown away. Steer under greedy "
                "search or sampling with the cache; without it, and under assisted decoding, steer "
                "by the same amount throughout a turn."
            )
        answers = self._teller.answers
        if answers and turn.cannot_steer:
            tell_of_no_steering(turn.cannot_steer)
            answers.clear()
        if not (wishes or answers or self._standing or self.steers_by_token):
            return
        speaking = [
            wish
            for wish in (*self._standing, *answers)
            if not (turn.rows[wish.sequence].finished or self._teller.is_off(wish.plugin))
        ]
        everything = [*speaking, *wishes]
        self.steers_by_token = bool(wishes or answers)
        if self._record(turn, everything):
            self._put(everything, len(turn.rows))

    def _record(self, turn: RunningTurn, wishes: Sequence[Wish]) -> bool:
        """Record what changed; return whether anything has."""
        offsets = [row.offset for row in turn.rows]
        changes = self._ledger.replace(wishes, turn.index, offsets)
        self._teller.tell_steering(changes)
        return bool(changes)

    def _put(self, wishes: Sequence[Wish], rows: int) -> None:
        """Let the tap do what is wished for, in prompt and reply."""
        if not self._tap.is_on:  # a turn that broke off is told to its end without hooks
            return
        of_prompt = [wish for wish in self._standing if wish.positions == "all"]
        self._tap.steer(edits_of(wishes, rows), prompt=edits_of(of_prompt, rows), first=self._first)
