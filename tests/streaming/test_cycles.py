"""Starting and stopping over and over: nothing may stay, however a stream was left."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from emowatch.streaming import AsyncStream, Stream
from tests.model.zoo import fail
from tests.streaming.footprint import Footprint
from tests.streaming.talking import endless, streams, wait_for
from tests.streaming.ticking import until

WAYS = ("close", "break", "drop", "cancel", "fail", "end")
CYCLES, BLOCKS = 1000, 5
RESIDENT_BYTES = 100_000
"""By how much the process may grow in at least one block of cycles, 500 bytes for each. What leaks,
leaks in every block; an allocator takes some MB in one step, and then none for many."""
PYTHON_BYTES = 50_000
"""By how much what Python holds may grow over all cycles, 50 bytes for each."""
OBJECTS = 100
"""How many more objects may be there after any number of cycles. One stream that stays has more."""


def leave(stream: Stream, way: str) -> None:
    """Leave a stream in one of the ways in which people do."""
    if way == "close":
        next(stream)
        stream.close()
    elif way == "break":
        for _ in stream:
            break
    elif way == "cancel":
        stream.cancel()
        list(stream)
    elif way == "fail":
        with pytest.raises(RuntimeError, match="lightning"):
            list(stream)
    elif way == "end":
        assert len(list(stream)) == 3


async def leave_awaited(stream: AsyncStream, way: str) -> None:
    """Leave an awaited stream in one of the ways in which requests do."""
    if way == "close":
        async with stream:
            await anext(stream)
    elif way == "break":
        async for _ in stream:
            break
    elif way == "drop":
        await stream.__aenter__()
    elif way == "cancel":
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif way == "fail":
        with pytest.raises(RuntimeError, match="lightning"):
            await anext(stream)
    elif way == "end":
        assert len([token async for token in stream]) == 3


def options(way: str, path: Path) -> dict[str, Any]:
    """Let the model speak as a way of leaving wants it, and write a log, which is a file."""
    processors: list[Any] = [fail] if way == "fail" else endless(0)
    return {
        "logits_processor": processors,
        "max_new_tokens": 3 if way == "end" else 200,
        "plugins": [("jsonl-log", {"path": path})],
    }


def ways(cycles: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """List the ways of so many cycles, each with a file for its log."""
    for number, way in zip(range(cycles), itertools.cycle(WAYS), strict=False):
        yield way, folder / f"{number}.jsonl"


def cycle(begin: Any, cycles: int, folder: Path) -> None:
    """Start and leave so many streams."""
    for way, path in ways(cycles, folder):
        leave(begin(**options(way, path)), way)
        assert wait_for(lambda: not streams())
        path.unlink(missing_ok=True)


async def cycle_awaited(abegin: Any, cycles: int, folder: Path) -> None:
    """Start and leave so many awaited streams."""
    for way, path in ways(cycles, folder):
        await leave_awaited(abegin(**options(way, path)), way)
        assert await until(lambda: not streams())
        path.unlink(missing_ok=True)


def test_a_few_cycles_leave_the_process_as_it_was(begin: Any, model: Any, tmp_path: Path) -> None:
    """The short form of the soak test."""
    cycle(begin, 12, tmp_path)
    before = Footprint.of(model)
    cycle(begin, 24, tmp_path)
    after = Footprint.of(model)
    assert after.holds_as_much(before), after.since(before)
    assert after.objects - before.objects <= OBJECTS, after.since(before)


async def test_a_few_awaited_cycles_leave_the_process_as_it_was(
    abegin: Any, model: Any, tmp_path: Path
) -> None:
    """In one loop, as a server's."""
    await cycle_awaited(abegin, 12, tmp_path)
    before = Footprint.of(model)
    await cycle_awaited(abegin, 24, tmp_path)
    after = Footprint.of(model)
    assert after.holds_as_much(before), after.since(before)
    assert after.objects - before.objects <= OBJECTS, after.since(before)


@pytest.mark.soak
@pytest.mark.parametrize("awaited", [False, True])
def test_a_thousand_cycles_leave_the_process_as_it_was(
    begin: Any, abegin: Any, model: Any, tmp_path: Path, awaited: bool
) -> None:
    """A server does this all day; what stays of each request ends it some night."""

    def run(cycles: int) -> None:
        if awaited:
            asyncio.run(cycle_awaited(abegin, cycles, tmp_path))
        else:
            cycle(begin, cycles, tmp_path)

    tracemalloc.start()
    try:
        run(300)
        found = [Footprint.of(model)]
        for _ in range(BLOCKS):
            run(CYCLES // BLOCKS)
            found.append(Footprint.of(model))
    finally:
        tracemalloc.stop()
    before, after = found[0], found[-1]
    resident = [b.resident_bytes - a.resident_bytes for a, b in pairwise(found)]
    told = f"{after.since(before)}, of which by blocks {[f'{n / 1e6:+.2f}' for n in resident]}"
    print(f"awaited={awaited}: {told}")  # noqa: T201  shown by make soak ARGS=-s
    assert after.holds_as_much(before), after.since(before)
    assert after.objects - before.objects <= OBJECTS, after.since(before)
    assert after.python_bytes - before.python_bytes <= PYTHON_BYTES, after.since(before)
    assert min(resident) <= RESIDENT_BYTES, told
