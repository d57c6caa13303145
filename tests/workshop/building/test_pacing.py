"""Rate limits, with a clock of the test's own."""

from __future__ import annotations

from threading import Event

from emowatch.workshop.building.pacing import MINUTE_S, Pace, wait_for


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


def test_a_wait_is_cut_short_where_all_is_stopped() -> None:
    """And tells that it was."""
    stopped = Event()
    assert wait_for(stopped, 0.0, -1.0)
    stopped.set()
    assert not wait_for(stopped, 60.0, 0.0)
    assert not wait_for(stopped, 0.0)
