"""Rate limits, with a clock of the test's own."""

from __future__ import annotations

from threading import Event
from typing import Any

from emowatch.workshop.building.pacing import MINUTE_S, Pace, wait_for_turn


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_no_minute_has_more_than_the_limit() -> None:
    """Wherever the minute begins."""
    clock = Clock()
    pace = Pace(30, clock=clock)
    starts = []
    for _ in range(90):
        starts.append(clock.now + pace.reserve())
        clock.now += 0.7  # asked for faster than the limit lets it
    for start in starts:
        assert sum(start <= other < start + MINUTE_S for other in starts) <= 30


def test_without_a_limit_nothing_waits_but_for_a_pause() -> None:
    """A server's wish holds for everybody."""
    clock = Clock()
    pace = Pace(None, clock=clock)
    assert [pace.reserve(1000) for _ in range(3)] == [0, 0, 0]
    pace.pause(5)
    assert pace.reserve() == 5
    clock.now += 6
    assert pace.reserve() == 0


def test_a_wrong_guess_is_put_right() -> None:
    """Token counts are known only when the answer is there."""
    clock = Clock()
    pace = Pace(60, clock=clock)
    pace.reserve(10)
    pace.correct(-4)
    assert pace.reserve(1) == 6


class Sleep(Event):
    """Moves the clock instead of sleeping, and lets something happen meanwhile."""

    def __init__(self, clock: Clock, meanwhile: list[Any]) -> None:
        super().__init__()
        self.clock, self.meanwhile = clock, meanwhile

    def wait(self, timeout: float | None = None) -> bool:
        for happen in self.meanwhile[:1]:
            happen()
        del self.meanwhile[:1]
        self.clock.now += timeout or 0.0
        return False


def test_a_turn_that_falls_in_a_pause_is_lost() -> None:
    """It was taken before the server said how long to wait; a pause may be followed by another."""
    clock = Clock()
    requests, tokens = Pace(120, clock=clock), Pace(600, clock=clock)
    requests.reserve()
    sleep = Sleep(clock, [lambda: requests.pause(3), lambda: requests.pause(4)])
    assert wait_for_turn(sleep, (requests, 1), (tokens, 10))
    assert clock.now == 104.5  # 100.5 is within the first pause, and 103 within the second
    assert requests.reserve() == 0.5


def test_what_was_guessed_too_high_shortens_no_pause() -> None:
    """Answers still come in while all wait."""
    clock = Clock()
    pace = Pace(60, clock=clock)
    pace.reserve(10)
    pace.pause(5)
    pace.correct(-9)
    assert pace.reserve() == 5


def test_a_wait_is_cut_short_where_all_is_stopped() -> None:
    """And tells that it was."""
    stopped, pace = Event(), Pace(1)
    assert wait_for_turn(stopped, (pace, 1), (Pace(None), 1))
    stopped.set()
    assert not wait_for_turn(stopped, (pace, 1), (Pace(None), 1))
    assert not wait_for_turn(stopped, (Pace(None), 1))
