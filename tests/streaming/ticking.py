"""A task that ticks in the event loop, and whoever in another thread waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from torch import Tensor

from tests.streaming.talking import Say, wait_for


class Ticks:
    """Ticks as long as the event loop is free."""

    def __init__(self) -> None:
        """Stand still until entered."""
        self.count = 0
        self.passed = 0
        """How often somebody waited for it, and it ticked."""

    async def __aenter__(self) -> Self:
        """Begin."""
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *why: object) -> None:
        """End."""
        self._task.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            self.count += 1

    def let_pass(self) -> None:
        """Wait for five ticks, in another thread; a loop that is held up gives none."""
        until = self.count + 5
        if not wait_for(lambda: self.count >= until, 30):
            raise AssertionError("the event loop stood still")
        self.passed += 1


class Waiting(Say):
    """Says one token for ever, each only after the loop has ticked."""

    def __init__(self, ticks: Ticks) -> None:
        """Connect."""
        super().__init__([40], for_ever=True)
        self._ticks = ticks

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Wait for the loop."""
        self._ticks.let_pass()
        return super().__call__(input_ids, scores)


def hold_up(tokenizer: Any, wait: Callable[[], None]) -> None:
    """Let a tokenizer call `wait` whenever it is to render a dialogue."""
    render = tokenizer.apply_chat_template

    def render_later(*args: Any, **options: Any) -> Any:
        wait()
        return render(*args, **options)

    tokenizer.apply_chat_template = render_later


async def until(condition: Any, seconds: float = 10.0) -> bool:
    """Wait in the loop until something is so."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.002)
    except TimeoutError:
        return False
    return True
