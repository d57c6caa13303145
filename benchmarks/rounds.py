"""Time several ways of doing one thing in turn, each between two runs of the plain way.

A round is plain, A, plain, B, plain …, with the ways shuffled anew. The ratio of a way is its time
over the mean of the two plain runs beside it, which cancels a drift of the machine's speed as far
as it is even. Before each run the garbage of the one before is collected; during a run the
collector works as always.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESAMPLES = 4_000
"""Of the bootstrap."""


class Way(Protocol):
    """One way of generating a reply, with or without reading the model."""

    name: str

    def attached(self) -> AbstractContextManager[None]:
        """Be ready to run inside; what this takes is kept apart, since it is paid once."""
        ...

    def run(self) -> Tensor:
        """Generate; return all tokens ``[rows, columns]``."""
        ...

    def scores(self) -> NDArray[np.floating] | None:
        """Give the scores of the last run, for each reply token and row those of every layer
        that was read: ``[tokens, rows, layers, labels]``; `None` for the plain way."""
        ...


@dataclass(frozen=True, slots=True)
class Times:
    """What one run took, in seconds."""

    wall_s: float
    cpu_s: float
    """Of all threads of the process."""
    attach_s: float
    """Wall time before and after, to get ready and to leave."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Ratios of one way over another: median, quartiles, and a bootstrap interval of the median."""

    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float]
    """In which the median of such ratios lies with 95 %, were the rounds independent."""
    count: int

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Spread:
        """Summarise ratios, of which there is at least one."""
        values = np.asarray(ratios)
        drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
        low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975)).tolist()
        first, third = np.quantile(values, (0.25, 0.75)).tolist()
        return cls(statistics.median(ratios), (first, third), (low, high), len(ratios))

    def __str__(self) -> str:
        """Show the median with its quartiles in brackets and its interval after them."""
        (first, third), (low, high) = self.quartiles, self.interval
        return f"{self.median:.3f} [{first:.3f}, {third:.3f}], {low:.3f} to {high:.3f}"


class Results:
    """A file of JSON lines that grows with each run, so that a crash loses nothing."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Append to `path`; `about` is said on every line."""
        self.path = path
        self._about = dict(about)

    def add(self, kind: str, **facts: Any) -> None:
        """Write one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **self._about, **facts}) + "\n")


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """List the lines of a file of results; a torn last one is left out."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def timed(way: Way) -> tuple[Tensor, Times]:
    """Run a way once, and wait for the device on which its tokens are."""
    gc.collect()
    started = perf_counter()
    with way.attached():
        wall, cpu = perf_counter(), process_time()
        tokens = way.run()
        if tokens.is_cuda:
            torch.cuda.synchronize()
        ended, cpu_ended = perf_counter(), process_time()
    attach_s = wall - started + perf_counter() - ended
    return tokens, Times(ended - wall, cpu_ended - cpu, attach_s)


def check(plain: Way, ways: Sequence[Way]) -> dict[str, str]:
    """Warm every way up, and say of each what of its tokens and scores is not as it should be.

    Ways that read as many layers are held against each other: they must do the same work.
    """
    wanted, _ = timed(plain)
    first: dict[int, NDArray[np.floating]] = {}
    said = {}
    for way in ways:
        tokens, _ = timed(way)
        found = way.scores()
        assert found is not None
        known = first.setdefault(found.shape[2], found)
        faults = []
        if not torch.equal(tokens.cpu(), wanted.cpu()):
            faults.append("other tokens")
        if found.shape != known.shape:
            faults.append(f"scores {found.shape} instead of {known.shape}")
        elif not faults and (worst := float(np.abs(found - known).max())) > 0.02:
            faults.append(f"scores differ by {worst:.3f}")
        said[way.name] = ", ".join(faults)
    return said


def contest(
    plain: Way,
    ways: Sequence[Way],
    *,
    rounds: int,
    results: Results,
) -> None:
    """Run every way in each round, and write down what each run and its neighbours took."""
    faults = check(plain, ways)
    for number in range(rounds):
        order = list(ways)
        random.Random(number).shuffle(order)
        _, before = timed(plain)
        for way in order:
            _, took = timed(way)
            _, after = timed(plain)
            results.add(
                "run",
                way=way.name,
                round=number,
                fault=faults[way.name],
                took=asdict(took),
                before=asdict(before),
                after=asdict(after),
            )
            before = after


def ratio_of(run: Mapping[str, Any], clock: str = "wall_s") -> float:
    """Divide what a run took by the mean of the plain runs beside it."""
    beside = (run["before"][clock] + run["after"][clock]) / 2
    return float(run["took"][clock] / beside)
