"""What a model in these tests says and when, and what is left when it has been stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.conftest import END_ID

NEW = 12


class Say:
    """A logits processor that makes the model say certain tokens, then end."""

    def __init__(self, tokens: Sequence[int], pause_s: float = 0.0, for_ever: bool = False) -> None:
        """Take the tokens; `for_ever` repeats the last one instead of ending."""
        self.tokens, self.pause_s, self.for_ever = list(tokens), pause_s, for_ever
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave only the wanted token possible."""
        time.sleep(self.pause_s)
        last = self.tokens[-1] if self.for_ever else END_ID
        token = self.tokens[self.step] if self.step < len(self.tokens) else last
        self.step += 1
        result = torch.full_like(scores, -torch.inf)
        result[:, token] = 0.0
        return result


class Held(Say):
    """Says one token for ever, each only when a test lets it; so a test knows where it is."""

    def __init__(self) -> None:
        """Hold the first one."""
        super().__init__([40], for_ever=True)
        self.asked = 0
        self._may = threading.Semaphore(0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Wait to be let."""
        self.asked += 1
        if not self._may.acquire(timeout=60):
            raise AssertionError(f"nobody let the model say its token {self.step}")
        return super().__call__(input_ids, scores)

    def let(self, tokens: int = 10_000) -> None:
        """Let it say that many more."""
        if tokens:
            self._may.release(tokens)

    def hold_at(self, token: int) -> None:
        """Let it say this many tokens in all, and wait until it is held at the next."""
        self.let(token - self.step)
        assert wait_for(lambda: self.asked == token + 1)


class Forwards:
    """Counts the forwards that a model begins, by a hook that stays on it."""

    def __init__(self, model: nn.Module) -> None:
        """Count from now on."""
        self.begun = 0
        model.register_forward_pre_hook(self._count)

    def _count(self, module: nn.Module, args: Any) -> None:
        self.begun += 1


def endless(pause_s: float = 0.002) -> list[Any]:
    """Let the model speak until it is stopped."""
    return [Say([40], pause_s, for_ever=True)]


def wait_for(condition: Any, seconds: float = 10.0) -> bool:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


def streams() -> int:
    """Count the worker threads that are alive."""
    return sum(thread.name == "emowatch-stream" for thread in threading.enumerate())
