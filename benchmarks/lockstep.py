"""Time several ways of generating a reply in lock-step: a token of each, then the next of each.

A shared machine's speed changes from second to second, by more than what is to be measured. So
all ways speak at once, each in a greenlet of its own on one thread: before each forward a way
stops, and the next one goes on. The tokens that are compared were made within a fraction of a
second, and the order of the ways is shuffled for each. A processor that sees a way at every fourth
token or so has forgotten more of its code than one that runs nothing else: what reading along
takes is overstated rather than understated, and the more the more ways run together.

Each way has its own modules, and with them its own hooks; the weights are the same memory.
"""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from time import perf_counter
from typing import Any, Protocol

import greenlet
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.results import Results


class Way(Protocol):
    """One way of generating a reply, with or without reading the model."""

    name: str

    @property
    def model(self) -> nn.Module:
        """What is called for each forward."""
        ...

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


def sharing_weights(model: Any) -> Any:
    """Copy the modules of a model but none of its tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


class Runner:
    """A way that stops before each of its forwards."""

    def __init__(self, way: Way) -> None:
        """Begin nothing yet."""
        self.way = way
        self.steps: list[float] = []
        """Seconds, one for each forward with what follows it; the first also begins the reply."""
        self.tokens: Tensor | None = None
        """What it said, when it is over."""
        self._started = False
        self._handle = way.model.register_forward_pre_hook(self._stop)
        self._owner = greenlet.getcurrent()
        self._place = greenlet.greenlet(self._run)

    def go_on(self) -> None:
        """Run until the next forward, or to the end."""
        started = perf_counter()
        self._place.switch()
        if self.tokens is not None and self.tokens.is_cuda:
            torch.cuda.synchronize()
        self.steps.append(perf_counter() - started)

    def _run(self) -> None:
        self.tokens = self.way.run()
        self._handle.remove()

    def _stop(self, *_: object) -> None:
        # What comes before the first forward belongs to its step.
        if self._started:
            # A way may use greenlets of its own: the one that stops here is the one to go on.
            self._place = greenlet.getcurrent()
            self._owner.switch()
        self._started = True


@torch.no_grad()  # or one way's end would set gradients for the others
def run_in_lockstep(ways: Sequence[Way], seed: int) -> list[Runner]:
    """Let every way generate once, token by token in turn."""
    gc.collect()
    runners = [Runner(way) for way in ways]
    order = list(runners)
    shuffle = random.Random(seed).shuffle
    while order:
        shuffle(order)
        for runner in order:
            runner.go_on()
        order = [runner for runner in order if runner.tokens is None]
    return runners


def faults(runners: Sequence[Runner]) -> dict[str, str]:
    """Say of each way what of its tokens and scores is not as it should be, beside the first way.

    Ways that read as many layers are held against each other: they must do the same work.
    """
    first: dict[int, NDArray[np.floating]] = {}
    return {r.way.name: ", ".join(_faults(r, runners[0].tokens, first)) for r in runners}


def _faults(
    runner: Runner, wanted: Tensor | None, first: dict[int, NDArray[np.floating]]
) -> Iterator[str]:
    assert runner.tokens is not None and wanted is not None
    is_same = torch.equal(runner.tokens.cpu(), wanted.cpu())
    if not is_same:
        yield "other tokens"
    found = runner.way.scores()
    if found is None:
        return
    known = first.setdefault(found.shape[2], found)
    if found.shape != known.shape:
        yield f"scores {found.shape} instead of {known.shape}"
    elif is_same and (worst := float(np.abs(found - known).max())) > 0.02:
        yield f"scores differ by {worst:.3f}"


def contest(ways: Sequence[Way], *, rounds: int, results: Results) -> None:
    """Hold rounds of all ways, the first of which is the plain one, and write each round down."""
    for number in range(-1, rounds):  # one more, to warm up
        attach_s = {}
        with ExitStack() as stack:
            for way in ways:
                started = perf_counter()
                stack.enter_context(way.attached())
                attach_s[way.name] = perf_counter() - started
            runners = run_in_lockstep(ways, seed=number)
        if number >= 0:
            results.add(
                "round",
                round=number,
                faults=faults(runners),
                attach_s=attach_s,
                steps={r.way.name: [round(step, 7) for step in r.steps] for r in runners},
            )
