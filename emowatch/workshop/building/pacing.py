"""Keep to so many requests and tokens a minute, over all threads of a client.

Requests are spaced evenly, so that no window of a minute has more than the limit. What a request
will take in tokens is a guess that is put right when it is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock

MINUTE_S = 60.0


class Pace:
    """A rate of anything countable; without a limit it only knows how to pause."""

    def __init__(
        self, per_minute: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take how much a minute may have; `None` for any amount."""
        self._seconds_each = 0.0 if per_minute is None else MINUTE_S / per_minute
        self._clock = clock
        self._next = self._pause_end = clock()
        self._lock = Lock()

    def reserve(self, amount: float = 1.0) -> float:
        """Take `amount` and say in how many seconds it may be used."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next, self._pause_end)
            self._next = start + amount * self._seconds_each
            return start - now

    def correct(self, amount: float) -> None:
        """Add what a reservation fell short by, or give back where it is negative."""
        with self._lock:
            self._next += amount * self._seconds_each

    def pause(self, seconds: float) -> None:
        """Let nobody begin before `seconds` have passed; turns that fall in them are lost."""
        with self._lock:
            self._pause_end = max(self._pause_end, self._clock() + seconds)

    @property
    def is_paused(self) -> bool:
        """Whether nobody may begin now."""
        with self._lock:
            return self._clock() < self._pause_end


def wait_for_turn(stopped: Event, *amounts: tuple[Pace, float]) -> bool:
    """Take so much of each pace and sleep until it may be used, or until `stopped`.

    Who wakes in a pause that began meanwhile takes another turn, after it.

    Returns:
        Whether the wait was not cut short.
    """
    while True:
        if stopped.wait(max(pace.reserve(amount) for pace, amount in amounts)):
            return False
        if not any(pace.is_paused for pace, _ in amounts):
            return True
