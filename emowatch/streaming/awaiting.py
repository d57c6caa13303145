"""Streams that are awaited, for web servers: no step of them holds up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import nn

from emowatch.bank import ProbeBank
from emowatch.dispatch import OnPluginError
from emowatch.plugins import PluginSpec
from emowatch.records import ReplyToken
from emowatch.streaming.prompts import Message, make_prompt
from emowatch.streaming.reply import StreamedReply
from emowatch.streaming.worker import Item, Sign, Speech, Worker
from emowatch.watching import Watch, watch


class AsyncStream(StreamedReply, AsyncIterator[ReplyToken]):
    """Scored tokens of one reply, awaited; made by `astream` and `aanswer`.

    It begins when it is entered or when its first token is awaited: until then nothing runs.
    Whoever is cancelled while waiting for a token stops the model within one token, and goes on
    when its hooks are gone. Leaving a bare loop early only asks the model to stop, because
    ``break`` cannot wait; ``async with`` and `aclose` wait.
    """

    def __init__(self, model: nn.Module, prepare: Callable[[], Speech]) -> None:
        """Start nothing yet; use `astream` or `aanswer`."""
        super().__init__(Worker(model, prepare))
        self._mail = _Mail()
        self._begun = self._over = False

    async def __aenter__(self) -> Self:
        """Begin, and wait until the session is open and the prompt is known to fit.

        Raises:
            EmowatchError: as `stream` raises where it is called.
        """
        self._begin()
        try:
            await self._mail.opened.wait()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if not self._mail.is_open:
            async for _ in self:  # there is no token: this raises what went wrong
                pass
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the model and wait for it."""
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[ReplyToken]:
        """Iterate; the model is asked to stop when the loop is left early."""
        return _Loop(self)

    async def __anext__(self) -> ReplyToken:
        """Wait for the next token.

        Raises:
            Exception: whatever went wrong in the worker.
        """
        if self._over:
            raise StopAsyncIteration
        self._begin()
        try:
            item = await self._mail.items.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if isinstance(item, ReplyToken):
            return item
        self._over = True
        self._mail.items.put_nowait(Sign.END)  # for another task that is waiting as well
        self._worker.wait()
        if isinstance(item, BaseException):
            try:
                raise item
            finally:
                del item  # a frame that holds its own exception is kept for the collector
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop the model and wait until its hooks are gone, also if cancelled meanwhile."""
        self.cancel()
        self._over = True
        if not self._begun:
            self._begun = True
            return
        cancelled: asyncio.CancelledError | None = None
        while not self._mail.ended.is_set():
            try:
                await self._mail.ended.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        self._worker.wait()  # it has told its end, and has nothing left to do
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled

    def _begin(self) -> None:
        """Start the worker, once, and listen in the running loop."""
        if not self._begun:
            self._mail.loop = asyncio.get_running_loop()
            self._worker.begin(self._mail.post)
            self._begun = True


class _Mail:
    """What has come from a worker. Only `post` is called in the worker's thread."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.items: asyncio.Queue[Item] = asyncio.Queue()
        self.opened, self.ended = asyncio.Event(), asyncio.Event()
        self.is_open = False

    def post(self, item: Item) -> None:
        """Send one item to the loop's thread; RuntimeError once the loop is closed."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self._take, item)

    def _take(self, item: Item) -> None:
        if item is Sign.OPEN:
            self.is_open = True
        else:
            self.items.put_nowait(item)
            if not isinstance(item, ReplyToken):
                self.ended.set()
        self.opened.set()


class _Loop(AsyncIterator[ReplyToken]):
    """One ``async for``; gone when that is left, by whatever way."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream

    async def __anext__(self) -> ReplyToken:
        return await self._stream.__anext__()

    def __del__(self) -> None:
        self._stream.cancel()


def astream(
    model: nn.Module,
    tokenizer: Any,
    messages: str | Sequence[Message],
    *,
    probes: str | Path | ProbeBank | Sequence[str | Path | ProbeBank],
    plugins: Sequence[PluginSpec] = (),
    max_new_tokens: int = 200,
    blocks: str | None = None,
    model_name: str | None = None,
    certificate: Mapping[str, Any] | None = None,
    strict: bool = False,
    on_plugin_error: OnPluginError = "disable",
    seed: int | None = None,
    **generate: Any,
) -> AsyncStream:
    """Answer `messages` as `stream` does, without holding up the event loop.

    Banks are opened and the prompt is encoded in the worker's thread. So what `stream` raises
    where it is called, this raises where it is entered, or where its first token is awaited.
    Arguments are those of `stream`. One model speaks with one stream at a time: a server puts
    an ``asyncio.Lock`` around it.

    Raises:
        UsageError: for a dialogue that cannot be said; awaited, as all of these.
        ContextError: for a dialogue that is longer than the model's context.
        UnsupportedError: if another stream is speaking with this model, and for `num_beams` or
            `num_return_sequences` above 1: a stream is one reply.

    Example:
        >>> async with emowatch.astream(model, tokenizer, "Hello!", probes=bank) as reply:
        ...     async for token in reply:
        ...         print(token.text, token.dominant)  # doctest: +SKIP
    """

    def prepare() -> Speech:
        prompt = make_prompt(model, tokenizer, messages, max_new_tokens, seed, generate)
        watcher = watch(
            model,
            tokenizer,
            probes=probes,
            plugins=plugins,
            blocks=blocks,
            model_name=model_name,
            certificate=certificate,
            strict=strict,
            on_plugin_error=on_plugin_error,
            seed=seed,
        )
        return Speech(watcher, watcher, prompt)

    return AsyncStream(model, prepare)


def aanswer(
    watcher: Watch,
    messages: str | Sequence[Message],
    *,
    max_new_tokens: int = 200,
    seed: int | None = None,
    **generate: Any,
) -> AsyncStream:
    """Answer `messages` inside a watch that is open, as `answer` does, to be awaited.

    Close the stream before the watch is left: its hooks are the watch's.

    Raises:
        UsageError: for a dialogue that cannot be said; awaited, as all of these.
        ContextError: for a dialogue that is longer than the model's context.
        UnsupportedError: if another stream is speaking with this model, and for `num_beams` or
            `num_return_sequences` above 1: a stream is one reply.
    """

    def prepare() -> Speech:
        model, tokenizer = watcher.speaker, watcher.tokenizer
        prompt = make_prompt(model, tokenizer, messages, max_new_tokens, seed, generate)
        return Speech(watcher, nullcontext(), prompt)

    return AsyncStream(watcher.model, prepare)
