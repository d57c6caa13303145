"""The thread in which a reply is generated, and how it is stopped.

It hands out what comes and knows nothing of who listens: a listener that is dropped can be
collected, and stops the model when it is.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TypeAlias

from torch import nn

from emowatch.errors import UnsupportedError
from emowatch.records import ReplyToken
from emowatch.streaming.callbacks import StopOnEvent, WatchStreamer
from emowatch.streaming.prompts import Prompt
from emowatch.watching import Watch

EXIT_S = 10.0
"""How long the end of the interpreter waits for a token that is being made."""


class Sign(Enum):
    """What a worker tells besides tokens and errors."""

    OPEN = "the session is open, the model is about to read the prompt"
    END = "the reply is over, and the hooks are gone"


Item: TypeAlias = ReplyToken | BaseException | Sign
"""Tokens come between `Sign.OPEN` and the last item, which is `Sign.END` or what went wrong."""


@dataclass(frozen=True, slots=True)
class Speech:
    """All that a worker needs for one reply."""

    watcher: Watch
    session: AbstractContextManager[object]
    """Entered around the reply: the watch itself, or nothing where it is open already."""
    prompt: Prompt


class Worker(threading.Thread):
    """Generates one reply and tells of each token.

    Attributes:
        watcher: the watch it speaks in; `None` until that is made.
        turns_before: turns in its trace when the reply began; `None` until it begins.
        alarms_before: alarms in its trace at that time.
        steerings_before: changes of steering in it at that time.
    """

    def __init__(self, model: nn.Module, prepare: Callable[[], Speech]) -> None:
        """Start nothing yet; `prepare` is called in the thread."""
        super().__init__(name="emowatch-stream", daemon=True)
        self.watcher: Watch | None = None
        self.turns_before: int | None = None
        self.alarms_before = self.steerings_before = 0
        self._model = model
        self._prepare: Callable[[], Speech] | None = prepare
        self._deliver: Callable[[Item], None] | None = None
        self._stop_event = StopOnEvent()
        self._is_over = False
        self._before: list[Worker] = []
        self._context = contextvars.copy_context()  # as asyncio.to_thread does

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop_event.event.is_set()

    def cancel(self) -> None:
        """Ask the model to stop after the token it is at. Never waits."""
        self._stop_event.event.set()

    def begin(self, deliver: Callable[[Item], None]) -> None:
        """Start the thread; `deliver` is called in it, and must not wait.

        A worker of the same model that was cancelled is waited for, in the new thread.

        Raises:
            UnsupportedError: if another stream is speaking with this model.
        """
        with _BEGINNING:
            self._before = [
                worker
                for worker in _workers()
                if worker._model is self._model and not worker._is_over
            ]
            # A plugin that streams from within its own stream would be waited for by itself.
            if any(w is threading.current_thread() or not w.is_cancelled for w in self._before):
                raise UnsupportedError(
                    f"Could not stream two replies at once from one {type(self._model).__name__}: "
                    "its hooks could not tell them apart. Read or close the other stream first; "
                    "a server puts an asyncio.Lock around astream."
                )
            self._deliver = deliver
            _stop_all_at_exit()
            self.start()

    def wait(self) -> None:
        """Wait until the thread has ended; harmless inside it."""
        if threading.current_thread() is not self:
            self.join()

    def run(self) -> None:
        """Do the work; `begin` starts it."""
        try:
            before, self._before = self._before, []
            for worker in before:
                worker.join()
            del before
            self._context.run(self._speak)
        except BaseException as error:  # nobody would see it in this thread
            self._end(_raisable(error))
        else:
            self._end(Sign.END)

    def _speak(self) -> None:
        prepare, self._prepare = self._prepare, None
        assert prepare is not None
        if self.is_cancelled:
            return
        speech = prepare()
        watcher = self.watcher = speech.watcher
        with speech.session:
            self.alarms_before = len(watcher.trace.alarms)
            self.steerings_before = len(watcher.trace.steerings)
            self.turns_before = len(watcher.trace.turns)
            self._tell(Sign.OPEN)
            if self.is_cancelled:  # nobody waits any more: a long prompt takes seconds to read
                return
            streamer = WatchStreamer(
                watcher,
                speech.prompt.streamer,
                on_token=self._tell,
                was_cancelled=self._stop_event.event.is_set,
            )
            try:
                speech.prompt.speak(watcher, streamer, self._stop_event)
            except BaseException:  # told as the end of the turn, raised by the consumer
                watcher.end_turn("failed")
                raise

    def _tell(self, item: Item) -> None:
        assert self._deliver is not None
        try:
            self._deliver(item)
        except RuntimeError:  # the event loop that listened is closed
            self.cancel()

    def _end(self, item: Item) -> None:
        self._is_over = True  # before it is told, since the next one may begin at once
        self._tell(item)
        self._deliver = None


_BEGINNING = threading.Lock()
"""Held while a worker looks for others of its model and becomes one that others see."""


def _workers() -> list[Worker]:
    return [thread for thread in threading.enumerate() if isinstance(thread, Worker)]


@cache  # once in a process: what is registered for the exit cannot be taken back wholly
def _stop_all_at_exit() -> None:
    """Let no thread be inside torch when the interpreter ends: it would abort the process."""
    atexit.register(_stop_all)


def _stop_all() -> None:
    workers = _workers()
    for worker in workers:
        worker.cancel()
    until = time.monotonic() + EXIT_S
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))


def _raisable(error: BaseException) -> BaseException:
    """Keep what would end the consumer's loop in silence from doing so (as PEP 479 does)."""
    if not isinstance(error, StopIteration | StopAsyncIteration | asyncio.CancelledError):
        return error
    wrapped = RuntimeError(f"The generation raised {type(error).__name__}.")
    wrapped.__cause__ = error
    return wrapped
