"""Work in threads: all of it is done, little of it at a time, and errors come out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from emowatch.workshop.building.workers import in_parallel


def test_every_item_is_done_once_and_few_are_taken_ahead() -> None:
    """What was taken and not yet given back is what a kill can lose."""
    taken: list[int] = []

    def items() -> Iterator[tuple[str, int]]:
        for n in range(50):
            taken.append(n)
            yield str(n), n

    given = 0
    found = {}
    for key, square in in_parallel(lambda n: n * n, items(), 4):
        assert len(taken) - given <= 4
        given += 1
        found[key] = square
    assert found == {str(n): n * n for n in range(50)}


def test_an_error_is_raised_when_the_others_are_done() -> None:
    """They may be paid for, and nothing more is begun."""
    begun: list[int] = []
    failed = threading.Event()

    def work(n: int) -> int:
        begun.append(n)
        if n == 1:
            failed.set()
            raise LookupError(n)
        failed.wait(10)
        time.sleep(0.1)  # the others end after it
        return n

    found = []
    with pytest.raises(LookupError):
        for key, _ in in_parallel(work, ((str(n), n) for n in range(9)), 3):
            found.append(key)
    assert sorted(found) == ["0", "2"] and sorted(begun) == [0, 1, 2]


def test_who_leaves_is_not_held_up_and_threads_end() -> None:
    """A call that hangs is left behind."""
    hold = threading.Event()
    before = threading.active_count()
    work = in_parallel(lambda n: hold.wait(30) if n else True, [("a", 0), ("b", 1)], 2)
    assert next(work) == ("a", True)
    began = time.monotonic()
    work.close()  # type: ignore[attr-defined]  # it is a generator
    assert time.monotonic() - began < 1
    hold.set()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
