"""One reply in the making: a thread reads it, the screen takes what has come."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from emowatch.records import Alarm, FinishReason, ReplyToken, SteeringChange
from emowatch.tui.source import Message, Reply, ReplySource
from emowatch.tui.summary import standing


@dataclass(slots=True, eq=False)
class ReplyRun:
    """Tokens on their way from the thread that reads a reply to the screen."""

    messages: Sequence[Message]
    started_s: float
    """What the clock said at the beginning."""
    _waiting: deque[ReplyToken] = field(default_factory=deque)
    _stop: threading.Event = field(default_factory=threading.Event)
    _reply: Reply | None = None
    _alarms_taken: int = 0
    _changes_taken: int = 0
    _standing: list[SteeringChange] = field(default_factory=list)

    def read(self, source: ReplySource) -> None:
        """Read the reply to its end; runs in a thread of its own.

        Raises:
            EmowatchError: whatever stopped the model.
        """
        self._reply = reply = source.reply(self.messages)
        if self._stop.is_set():  # the user was faster than the model
            reply.cancel()
        for token in reply:
            self._waiting.append(token)

    def stop(self) -> None:
        """Ask the model to stop; tokens already made still come."""
        self._stop.set()
        if self._reply is not None:
            self._reply.cancel()

    @property
    def is_stopping(self) -> bool:
        """Whether the model was asked to stop."""
        return self._stop.is_set()

    def take_tokens(self) -> list[ReplyToken]:
        """Hand out the tokens that came since the last call."""
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def take_alarms(self) -> list[Alarm]:
        """Hand out the alarms that came since the last call."""
        alarms = [] if self._reply is None else list(self._reply.alarms[self._alarms_taken :])
        self._alarms_taken += len(alarms)
        return alarms

    def take_steering(self) -> list[SteeringChange]:
        """Say what is done to the residual now."""
        new = [] if self._reply is None else self._reply.steerings[self._changes_taken :]
        self._changes_taken += len(new)
        self._standing = standing([*self._standing, *new])
        return self._standing

    @property
    def finish_reason(self) -> FinishReason:
        """Why the reply ended; asked after its end."""
        reason = None if self._reply is None else self._reply.finish_reason
        return reason or ("cancelled" if self.is_stopping else "stop")
