"""Runs of an extraction that are killed or measured; started by test_extraction.py.

Each run is a fork: it may be killed with no clean-up, and its peak memory is its own. Torch is
kept to one thread, because threads do not live on in a fork.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from emowatch.model.blocks import find_blocks
from emowatch.workshop import extraction
from tests.model.zoo import make_model
from tests.workshop.synthetic import random_passages

torch.set_num_threads(1)
MODEL = make_model("llama")
BLOCKS = find_blocks(MODEL)
KILLED = "killed"


def in_fork(work: Callable[[], object]) -> str:
    """Run `work` in a fork; return what it printed, or that it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.write(writing, str(work()).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return KILLED if os.WIFSIGNALED(status) else said


def die_at(moment: int) -> Callable[[], None]:
    """Make a clock that kills this process at its tick number `moment`."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        if ticks == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        ticks += 1

    return tick


def extract_and_die(folder: Path, moment: int) -> int:
    """Extract, and be killed at one of the moments between two steps of writing and reading."""
    tick = die_at(moment)
    write, replace = Path.write_bytes, Path.replace

    def write_halves(path: Path, data: bytes) -> int:
        tick()
        write(path, data[: len(data) // 2])
        tick()
        return write(path, data)

    def replace_and_tick(path: Path, target: Path) -> Path:
        tick()
        done = replace(path, target)
        tick()
        return done

    setattr(Path, "write_bytes", write_halves)  # noqa: B010  # mypy knows no such assignment
    setattr(Path, "replace", replace_and_tick)  # noqa: B010
    extraction.SHARD_BYTES = 4096
    passages = random_passages(20)
    found = extraction.extract(
        MODEL, BLOCKS, passages, (0, 2, 3), folder, batch_tokens=64, progress=lambda *_: tick()
    )
    return len(found)


def kill_everywhere(folder: Path) -> dict[str, object]:
    """Kill runs at every moment in turn, finish each, and compare with one left alone."""
    alone = folder / "alone"
    whole = in_fork(partial(extract_and_die, alone, -1))
    wanted = contents(alone)
    moment = 0
    differing = []
    while True:
        here = folder / str(moment)
        if in_fork(partial(extract_and_die, here, moment)) != KILLED:
            break
        in_fork(partial(extract_and_die, here, -1))
        if contents(here) != wanted:
            differing.append(moment)
        moment += 1
    return {"rows": whole, "moments": moment, "differing": differing, "files": sorted(wanted)}


def two_at_once(folder: Path) -> dict[str, object]:
    """Start a second run while one is at work, kill that one, and run again."""
    alone, here = folder / "alone", folder / "two"
    in_fork(partial(extract_and_die, alone, -1))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:

        def stop(done: int, total: int) -> None:
            if done > total / 2:
                os.write(writing, b"!")
                signal.pause()

        extraction.SHARD_BYTES = 4096
        passages = random_passages(20)
        extraction.extract(MODEL, BLOCKS, passages, (0, 2, 3), here, batch_tokens=64, progress=stop)
        os._exit(1)
    os.read(reading, 1)
    before = contents(here)
    refused = in_fork(partial(extract_and_die, here, -1))
    untouched = contents(here) == before
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    resumed = in_fork(partial(extract_and_die, here, -1))
    return {
        "shards": sum(name[0] == "0" for name in before),
        "refused": refused,
        "untouched": untouched,
        "resumed": resumed,
        "same": contents(here) == contents(alone),
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def peak_memory(folder: Path, count: int) -> int:
    """Extract `count` passages and give the peak of resident memory in MiB."""
    extraction.SHARD_BYTES = 2**20
    passages = random_passages(count, places=60, longest=60)
    extraction.extract(MODEL, BLOCKS, passages, (0, 1, 2, 3), folder)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(folder: Path) -> None:
    """Run everything and print one JSON object."""
    report = kill_everywhere(folder)
    report["two"] = two_at_once(folder / "together")
    report["peaks"] = [
        int(in_fork(partial(peak_memory, folder / f"peak{n}", n))) for n in (100, 900)
    ]
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
