"""Streams that are read in a plain loop, which waits for each token."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import nn

from emowatch.bank import ProbeBank
from emowatch.dispatch import OnPluginError
from emowatch.plugins import PluginSpec
from emowatch.records import ReplyToken
from emowatch.streaming.prompts import Message, make_prompt, with_system
from emowatch.streaming.reply import StreamedReply
from emowatch.streaming.worker import Item, Sign, Speech, Worker
from emowatch.watching import Watch, watch


class Stream(StreamedReply, Iterator[ReplyToken]):
    """Scored tokens of one reply; made by `stream` and `answer`.

    Leaving the loop early, `close`, or dropping the stream stops the model within one token.
    """

    def __init__(self, speech: Speech) -> None:
        """Start the worker; use `stream` or `answer`."""
        super().__init__(Worker(speech.watcher.model, lambda: speech))
        self._worker.watcher = speech.watcher
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._over = False
        self._worker.begin(self._queue.put)

    def __enter__(self) -> Self:
        """Use as a context manager to be sure of the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the model and wait for it."""
        self.close()

    def __iter__(self) -> Iterator[ReplyToken]:
        """Iterate; the model is stopped when the loop is left early."""
        try:
            while True:
                try:
                    yield self.__next__()
                except StopIteration:
                    return
        finally:
            self.close()

    def __next__(self) -> ReplyToken:
        """Wait for the next token.

        Raises:
            Exception: whatever went wrong in the worker.
        """
        while not self._over:
            item = self._queue.get()
            if isinstance(item, ReplyToken):
                return item
            if item is Sign.OPEN:
                continue
            self._over = True
            self._queue.put(Sign.END)  # for another thread that is waiting as well
            self._worker.wait()
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    del item  # a frame that holds its own exception is kept for the collector
        raise StopIteration

    def close(self) -> None:
        """Stop the model and wait until its hooks are gone."""
        self.cancel()
        self._worker.wait()
        self._over = True


def stream(
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
) -> Stream:
    """Answer `messages` and yield each reply token with its scores.

    Args:
        model: as for `watch`.
        tokenizer: as for `watch`.
        messages: a dialogue of ``{"role": …, "content": …}``, or the text of one user message.
        probes: as for `watch`.
        plugins: as for `watch`.
        max_new_tokens: longest reply; cut to what the context leaves.
        blocks: as for `watch`.
        model_name: as for `watch`.
        certificate: as for `watch`.
        strict: as for `watch`.
        on_plugin_error: as for `watch`.
        seed: torch's seed for this reply, so that sampling can be repeated; `None` leaves it.
            It is kept with the session and among the turn's settings.
        **generate: handed to ``model.generate`` unchanged, such as ``do_sample=True``; your
            own ``streamer`` and ``stopping_criteria`` are called beside ours.

    Raises:
        UsageError: for a dialogue that cannot be said: empty, not text, or refused by the template.
        ContextError: for a dialogue that is longer than the model's context.
        UnsupportedError: if another stream is speaking with this model, and for `num_beams` or
            `num_return_sequences` above 1: a stream is one reply.
    """
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
    return Stream(Speech(watcher, watcher, prompt))


def answer(
    watcher: Watch,
    messages: str | Sequence[Message],
    *,
    max_new_tokens: int = 200,
    seed: int | None = None,
    **generate: Any,
) -> Stream:
    """Answer `messages` inside a watch that is open: one session over several turns.

    A system prompt that an alarm of the last turn asked for stands in the place of theirs.

    Raises:
        UsageError: for a dialogue that cannot be said: empty, not text, or refused by the template.
        ContextError: for a dialogue that is longer than the model's context.
        UnsupportedError: if another stream is speaking with this model, and for `num_beams` or
            `num_return_sequences` above 1: a stream is one reply.

    Example:
        >>> with emowatch.watch(model, tokenizer, probes=bank) as w:  # doctest: +SKIP
        ...     for token in answer(w, "Hello!"):
        ...         print(token.text, end="")
    """
    speaker, tokenizer = watcher.speaker, watcher.tokenizer
    dialogue = with_system(messages, watcher.take_system())
    prompt = make_prompt(speaker, tokenizer, dialogue, max_new_tokens, seed, generate)
    return Stream(Speech(watcher, nullcontext(), prompt))
