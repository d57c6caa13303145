"""Hand things to a slow sink from a thread of its own, and count what becomes of each.

Knows things and a function that takes them; nothing of plugins or hooks.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

T = TypeVar("T")
SIZE = 4_096
"""Things that may wait; one more, and the newest is dropped."""
DEADLINE_S = 5.0
"""How long the end of the interpreter waits for all outboxes together."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of what an outbox was given: ``received = written + dropped + pending``."""

    received: int = 0
    written: int = 0
    dropped: int = 0
    """Because the outbox was full, the sink had failed, or the deadline passed."""

    @property
    def pending(self) -> int:
        """Things that wait, and the one that is being delivered."""
        return self.received - self.written - self.dropped


class Outbox(Generic[T]):
    """A bounded queue before one sink, with the thread that empties it.

    The thread begins with the first thing and ends after `finish`. It is a daemon, to which the
    end of the interpreter gives some seconds. In a forked child an outbox is new and empty: what
    waits is its parent's to deliver.

    Attributes:
        failure: the thing that the sink failed on, and what it raised; it is given nothing more.
    """

    def __init__(self, deliver: Callable[[T], None], size: int = SIZE) -> None:
        """Prepare.

        Args:
            deliver: takes one thing at a time, on the outbox's thread.
            size: things that may wait, the one that is being delivered not counted.
        """
        self._deliver = deliver
        self._size = size
        self.begin_anew()
        _OPEN.add(self)

    def begin_anew(self) -> None:
        """Forget everything, as a forked child must."""
        self.failure: tuple[T, BaseException] | None = None
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._received = self._written = self._dropped = 0
        self._is_delivering = self._is_finished = False

    @property
    def counts(self) -> Counts:
        """What became of everything so far; the sum is exact at any moment."""
        with self._changed:
            return Counts(self._received, self._written, self._dropped)

    def put(self, thing: T) -> None:
        """Take a thing to be delivered; it neither waits nor raises."""
        with self._changed:
            self._received += 1
            if self._is_finished or self.failure is not None or len(self._waiting) >= self._size:
                self._dropped += 1
                return
            self._waiting.append(thing)
            if self._thread is None:
                run = threading.Thread(target=self._run, name="emowatch-outbox", daemon=True)
                self._thread = run
                run.start()
            self._changed.notify_all()

    def finish(self) -> None:
        """Take nothing more; what waits is delivered, and then the thread ends."""
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()

    def flush(self, deadline_s: float) -> bool:
        """Wait until nothing is pending; return whether that came to be in time."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, deadline_s)

    def close(self, deadline_s: float = DEADLINE_S) -> Counts:
        """Deliver what waits as long as there is time, drop the rest, and take nothing more."""
        self.finish()
        self.flush(deadline_s)
        with self._changed:
            # What a sink never comes back from is lost as well.
            self._dropped += len(self._waiting) + self._is_delivering
            self._is_delivering = False
            self._waiting.clear()
        _OPEN.discard(self)
        return self.counts

    def _is_idle(self) -> bool:
        return not self._waiting and not self._is_delivering

    def _run(self) -> None:
        changed = self._changed
        while True:
            with changed:
                changed.wait_for(lambda: self._waiting or self._is_finished)
                if not self._waiting:
                    return
                thing = self._waiting.popleft()
                self._is_delivering = True
            error: BaseException | None = None
            try:
                self._deliver(thing)
            except (Exception, SystemExit) as caught:
                error = caught
            with changed:
                if not self._is_delivering:
                    return  # given up by `close` meanwhile
                self._is_delivering = False
                if error is None:
                    self._written += 1
                else:
                    self.failure = thing, error
                    self._dropped += 1 + len(self._waiting)
                    self._waiting.clear()
                changed.notify_all()


_OPEN: weakref.WeakSet[Outbox[Any]] = weakref.WeakSet()


def _close_all() -> None:
    until = monotonic() + DEADLINE_S
    for outbox in list(_OPEN):
        outbox.close(max(0.0, until - monotonic()))


def _begin_all_anew() -> None:
    for outbox in list(_OPEN):
        outbox.begin_anew()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_begin_all_anew)
