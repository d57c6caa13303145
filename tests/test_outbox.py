"""Outboxes: nothing waits for a slow sink, and everything that was handed over is accounted for."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emowatch.outbox import DEADLINE_S, Counts, Outbox


class Sink:
    """Takes things when it is let."""

    def __init__(self) -> None:
        """Let nothing through."""
        self.taken: list[int] = []
        self.may = threading.Semaphore(0)
        self.busy = threading.Event()

    def __call__(self, thing: int) -> None:
        """Take a thing; a negative one is an error."""
        self.busy.set()
        self.may.acquire()
        self.busy.clear()
        if thing < 0:
            raise OSError(f"no room for {thing}")
        self.taken.append(thing)

    def let(self, count: int = 10_000) -> None:
        """Let so many things through."""
        self.may.release(count)


@pytest.fixture
def sink() -> Iterator[Sink]:
    """Give a sink that lets its threads end."""
    made = Sink()
    yield made
    made.let()


def test_things_are_delivered_in_their_order_by_one_other_thread() -> None:
    """A log whose lines change places is no log."""
    taken: list[tuple[int, int]] = []
    outbox = Outbox[int](lambda thing: taken.append((thing, threading.get_ident())))
    for thing in range(1000):
        outbox.put(thing)
    assert outbox.flush(10)
    assert [thing for thing, _ in taken] == list(range(1000))
    assert {where for _, where in taken}.isdisjoint({threading.get_ident()})
    assert len({where for _, where in taken}) == 1
    assert outbox.close() == Counts(1000, 1000, 0)


def test_nobody_waits_for_a_sink_that_hangs(sink: Sink) -> None:
    """The model speaks on; what finds no room is dropped and counted."""
    outbox = Outbox(sink, size=10)
    started = time.perf_counter()
    outbox.put(0)
    assert sink.busy.wait(10)
    for thing in range(1, 1000):
        outbox.put(thing)
    assert time.perf_counter() - started < 1
    assert outbox.counts == Counts(1000, 0, 989)
    assert outbox.counts.pending == 11
    sink.let()
    assert outbox.flush(10)
    assert outbox.counts == Counts(1000, 11, 989)
    assert sink.taken == list(range(11))
    outbox.close()


def test_a_sink_that_fails_is_given_nothing_more(sink: Sink) -> None:
    """Its error is kept, with what it failed on."""
    outbox = Outbox(sink)
    for thing in (1, -2, 3, 4):
        outbox.put(thing)
    sink.let()
    assert outbox.flush(10)
    outbox.put(5)
    assert outbox.failure is not None
    thing, error = outbox.failure
    assert (thing, str(error)) == (-2, "no room for -2")
    assert outbox.counts == Counts(5, 1, 4)
    outbox.close()


def test_what_is_not_delivered_by_the_deadline_is_dropped(sink: Sink) -> None:
    """Also the thing that the sink never comes back from."""
    outbox = Outbox(sink)
    for thing in range(5):
        outbox.put(thing)
    assert sink.busy.wait(10)
    assert outbox.close(0.05) == Counts(5, 0, 5)
    sink.let()
    time.sleep(0.05)
    assert outbox.counts == Counts(5, 0, 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["put", "bad", "let", "flush", "finish"]), max_size=40))
def test_the_counts_add_up_at_every_moment(doings: list[str]) -> None:
    """``received = written + dropped + pending``, whatever happens in whatever order."""
    sink = Sink()
    outbox = Outbox(sink, size=3)
    received = 0
    for doing in doings:
        if doing in ("put", "bad"):
            received += 1
            outbox.put(received if doing == "put" else -1)
        elif doing == "let":
            sink.let(1)
        elif doing == "flush":
            outbox.flush(0.001)
        else:
            outbox.finish()
        found = outbox.counts
        assert found.received == received
        assert 0 <= found.pending <= 3 + 1
        assert min(found.written, found.dropped) >= 0
    sink.let()
    found = outbox.close()
    assert found.pending == 0
    assert found.received == received
    assert found.written == len(sink.taken)


def test_its_thread_begins_late_and_ends_when_it_is_finished() -> None:
    """A session without a word costs no thread, and a thousand sessions leave none."""
    before = threading.active_count()
    outbox = Outbox[int](lambda _: None)
    assert threading.active_count() == before
    outbox.put(1)
    assert outbox.flush(10)
    thread = outbox._thread
    assert thread is not None and thread.is_alive()
    outbox.finish()
    thread.join(10)
    assert not thread.is_alive()


def run_in_process(code: str, folder: Path) -> float:
    """Run code in an interpreter of its own; return its wall time in seconds."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=folder, timeout=60
    )
    return time.perf_counter() - started


def test_the_end_of_the_interpreter_waits_for_what_is_pending(tmp_path: Path) -> None:
    """The last lines of a log are those that one wants."""
    code = f"""
        import sys, time
        sys.path.insert(0, {os.getcwd()!r})
        from emowatch.outbox import Outbox

        def write(thing):
            time.sleep(0.002)
            with open("taken", "a") as file:
                file.write(f"{{thing}}\\n")

        outbox = Outbox(write)
        for thing in range(200):
            outbox.put(thing)
        outbox.finish()
    """
    run_in_process(code, tmp_path)
    assert (tmp_path / "taken").read_text().split() == [str(thing) for thing in range(200)]


def test_sinks_that_hang_hold_the_end_up_for_one_deadline_together(tmp_path: Path) -> None:
    """Three of them no longer than one."""
    code = f"""
        import sys, time
        sys.path.insert(0, {os.getcwd()!r})
        from emowatch.outbox import Outbox

        boxes = [Outbox(lambda _: time.sleep(1e6)) for _ in range(3)]
        for outbox in boxes:
            outbox.put(1)
    """
    took = run_in_process(code, tmp_path)
    assert DEADLINE_S - 0.5 <= took <= DEADLINE_S + 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_an_empty_outbox_of_its_own(tmp_path: Path) -> None:
    """Threads and locks do not survive a fork; what waits is its parent's."""
    taken = tmp_path / "taken"
    gate = threading.Event()

    def write(thing: str) -> None:
        gate.wait(10)
        with taken.open("a") as file:
            file.write(f"{thing} {os.getpid()}\n")

    outbox = Outbox(write)
    for thing in ("a", "b"):
        outbox.put(thing)
    child = os.fork()
    if not child:
        gate.set()
        outbox.put("c")
        os._exit(0 if outbox.close(5) == Counts(1, 1, 0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    gate.set()
    assert outbox.close(10) == Counts(2, 2, 0)
    own, other = str(os.getpid()), str(child)
    assert sorted(taken.read_text().split("\n"))[1:] == [f"a {own}", f"b {own}", f"c {other}"]
