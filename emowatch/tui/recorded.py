"""Replies of a stored session, spoken again at a speed of one's own; there is no model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from emowatch.records import Alarm, BankInfo, FinishReason, ReplyToken, SteeringChange
from emowatch.trace import Trace
from emowatch.tui.source import Message, Reply

UNSAID = "▪ "
"""Stands for a token of a trace that holds no text."""


class TraceSource:
    """Gives the turns of one row of a trace, one after the other, whatever is asked."""

    def __init__(self, trace: Trace, row: int = 0, speed: float | None = None) -> None:
        """Begin with the first turn.

        Args:
            trace: the stored session.
            row: of its batches.
            speed: tokens a second; without one, all at once.
        """
        self._trace = trace
        self._row = row
        self._pause_s = 0.0 if speed is None else 1 / speed
        found = {s.turn for s in trace.tokens if s.sequence == row and s.offset is not None}
        self.turns = sorted(found)
        """The numbers of the turns that are still to come."""

    @property
    def model_name(self) -> str:
        """The name of the model that spoke."""
        return self._trace.session.model

    @property
    def banks(self) -> tuple[BankInfo, ...]:
        """What is known of the banks."""
        return self._trace.session.banks

    def reply(self, messages: Sequence[Message]) -> Reply:
        """Speak the next turn."""
        return _RecordedReply(self._trace, self.turns.pop(0), self._row, self._pause_s)


class _RecordedReply:
    """One reply of a trace."""

    def __init__(self, trace: Trace, turn: int, row: int, pause_s: float) -> None:
        here = (turn, row)
        by_bank = [trace.reply(turn, row, bank.name) for bank in trace.session.banks]
        self._tokens = list(zip(*by_bank, strict=False))
        self._ended = next((t for t in trace.turns if (t.index, t.sequence) == here), None)
        self._coming = [a for a in trace.alarms if (a.turn, a.sequence) == here]
        self._changes = [c for c in trace.steerings if (c.turn, c.sequence) == here]
        self._pause_s = pause_s
        self._stop = threading.Event()
        self.alarms: list[Alarm] = [a for a in self._coming if a.offset is None]
        self.steerings: list[SteeringChange] = [c for c in self._changes if c.offset is None]

    def __iter__(self) -> Iterator[ReplyToken]:
        pieces = () if self._ended is None else self._ended.pieces
        ids = () if self._ended is None else self._ended.token_ids
        for number, scores in enumerate(self._tokens):
            if self._stop.wait(self._pause_s):
                return
            offset = scores[0].offset
            self.alarms += [a for a in self._coming if a.offset == offset]
            self.steerings += [c for c in self._changes if c.offset == offset]
            yield ReplyToken(
                text=pieces[number] if number < len(pieces) else UNSAID,
                token_id=ids[number] if number < len(ids) else -1,
                by_bank=scores,
            )

    def cancel(self) -> None:
        self._stop.set()

    @property
    def finish_reason(self) -> FinishReason | None:
        if self._stop.is_set():
            return "cancelled"
        # The end of a turn that was never written is not known; a crash cut it off.
        return "failed" if self._ended is None else self._ended.finish_reason
