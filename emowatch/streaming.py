"""Generate in a worker thread and hand out scored tokens as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from emowatch.bank import ProbeBank
from emowatch.dispatch import OnPluginError
from emowatch.errors import ContextError, UsageError
from emowatch.model.blocks import text_config
from emowatch.plugins import PluginSpec
from emowatch.records import Alarm, ReplyToken, Turn
from emowatch.trace import Trace
from emowatch.watching import Watch, watch

Message = Mapping[str, str]


class Streamer(Protocol):
    """What ``generate`` asks of a streamer."""

    def put(self, value: Tensor) -> None:
        """Take the prompt, then each new token."""

    def end(self) -> None:
        """Take note that the reply is over."""


class WatchStreamer(BaseStreamer):
    """A transformers streamer that tells a watch which tokens were sampled.

    With it a watch knows the last token and the end of the reply at once. Give the streamer
    you had as `inner`; it is called as before.
    """

    def __init__(
        self,
        watcher: Watch,
        inner: Streamer | None = None,
        on_token: Callable[[ReplyToken], None] | None = None,
        was_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Connect to a watch."""
        self._was_cancelled = was_cancelled
        self._watch = watcher
        self._inner = inner
        self._on_token = on_token

    def put(self, value: Tensor) -> None:
        """Take the prompt ``[rows, time]`` first, then tokens ``[rows]``, one per step."""
        if value.ndim == 1:
            token = self._watch.note_tokens(value.flatten().tolist())
            if token is not None and self._on_token is not None:
                self._on_token(token)
        if self._inner is not None:
            self._inner.put(value)

    def end(self) -> None:
        """Finish the turn."""
        self._watch.end_turn("cancelled" if self._was_cancelled() else None)
        if self._inner is not None:
            self._inner.end()


class Stream(Iterator[ReplyToken]):
    """Scored tokens of one reply; made by `stream` and `answer`.

    Leaving the loop early, or `close`, stops the model within one token.
    """

    def __init__(
        self,
        watcher: Watch,
        generate: Callable[[Watch, StopOnEvent, Any], None],
        inner: Streamer | None = None,
        *,
        session: AbstractContextManager[object],
    ) -> None:
        """Start the worker, inside `session`; use `stream` or `answer`."""
        self._watch = watcher
        self._session = session
        self._turns_before = len(watcher.trace.turns)
        self._alarms_before = len(watcher.trace.alarms)
        self._inner = inner
        self._stop = StopOnEvent()
        self._queue: queue.SimpleQueue[ReplyToken | BaseException | None] = queue.SimpleQueue()
        self._generate = generate
        self._over = False
        self._thread = threading.Thread(target=self._work, name="emowatch-stream", daemon=True)
        self._thread.start()

    @property
    def trace(self) -> Trace:
        """What was scored so far."""
        return self._watch.trace

    @property
    def turn(self) -> Turn | None:
        """The finished turn; `None` while the reply runs."""
        since = self.trace.turns[self._turns_before :]
        return since[0] if since else None

    @property
    def alarms(self) -> Sequence[Alarm]:
        """The alarms of this reply so far, oldest first."""
        return self.trace.alarms[self._alarms_before :]

    @property
    def plugin_failures(self) -> Mapping[str, int]:
        """How often each plugin failed; a plugin that failed is off."""
        return self._watch.plugins.errors

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
        if self._over:
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, ReplyToken):
            return item
        self._over = True
        self._thread.join()
        if item is None:
            raise StopIteration
        raise item

    def cancel(self) -> None:
        """Ask the model to stop after the token it is at; tokens already made still come."""
        self._stop.event.set()

    def close(self) -> None:
        """Stop the model and wait until its hooks are gone."""
        self.cancel()
        self._thread.join()
        self._over = True

    def _work(self) -> None:
        try:
            watcher = self._watch
            with self._session:
                try:
                    streamer = WatchStreamer(
                        watcher,
                        self._inner,
                        on_token=self._queue.put,
                        was_cancelled=self._stop.event.is_set,
                    )
                    self._generate(watcher, self._stop, streamer)
                except BaseException:  # told as the end of the turn, raised by the consumer
                    watcher.end_turn("failed")
                    raise
        except BaseException as error:  # nobody would see it in this thread
            self._queue.put(error)
        else:
            self._queue.put(None)


class StopOnEvent(StoppingCriteria):
    """Stops every row once its event is set."""

    def __init__(self) -> None:
        """Start with the event not set."""
        self.event = threading.Event()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Answer ``[rows]``: whether each row is to stop."""
        stopped = torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)
        return stopped


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
        UsageError: for an empty message.
        ContextError: for a dialogue that is longer than the model's context.
    """
    prepared = _prepare(model, tokenizer, messages, max_new_tokens, seed, generate)
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
    return Stream(watcher, *prepared, session=watcher)


def answer(
    watcher: Watch,
    messages: str | Sequence[Message],
    *,
    max_new_tokens: int = 200,
    seed: int | None = None,
    **generate: Any,
) -> Stream:
    """Answer `messages` inside a watch that is open: one session over several turns.

    Raises:
        UsageError: for an empty message.
        ContextError: for a dialogue that is longer than the model's context.

    Example:
        >>> with emowatch.watch(model, tokenizer, probes=bank) as w:  # doctest: +SKIP
        ...     for token in answer(w, "Hello!"):
        ...         print(token.text, end="")
    """
    prepared = _prepare(watcher.model, watcher.tokenizer, messages, max_new_tokens, seed, generate)
    return Stream(watcher, *prepared, session=nullcontext())


def _prepare(
    model: nn.Module,
    tokenizer: Any,
    messages: str | Sequence[Message],
    max_new_tokens: int,
    seed: int | None,
    generate: dict[str, Any],
) -> tuple[Callable[[Watch, StopOnEvent, Any], None], Streamer | None]:
    """Check a prompt and make the function that answers it, and find the caller's streamer."""
    inputs = encode_prompt(tokenizer, messages)
    prompt = inputs["input_ids"].shape[1]
    context = (
        getattr(text_config(model), "max_position_embeddings", None) or prompt + max_new_tokens
    )
    if prompt >= context:
        raise ContextError(
            f"The prompt has {prompt} tokens, and this model's context is {context}: nothing is "
            "left for a reply. Shorten the message or start a new chat."
        )
    limit = min(max_new_tokens, context - prompt)
    criteria, inner = generate.pop("stopping_criteria", None) or (), generate.pop("streamer", None)
    speaker: Any = model

    def run(running: Watch, stop: StopOnEvent, streamer: WatchStreamer) -> None:
        device = speaker.get_input_embeddings().weight.device
        running.seed_turn(seed)
        speaker.generate(
            **{name: tensor.to(device) for name, tensor in inputs.items()},
            max_new_tokens=limit,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([*criteria, stop]),
            **generate,
        )

    return run, inner


def encode_prompt(tokenizer: Any, messages: str | Sequence[Message]) -> dict[str, Tensor]:
    """Render a dialogue with the chat template, or a plain text where there is none.

    Raises:
        UsageError: for a message without text, or a dialogue the template refuses.
    """
    dialogue = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    for message in dialogue:
        if not message.get("content", "").strip():
            raise UsageError(f"The {message.get('role', 'user')} message is empty: nothing to say.")
    if not getattr(tokenizer, "chat_template", None):
        text = "\n".join(message["content"] for message in dialogue)
        encoded = tokenizer(text, return_tensors="pt")
    else:
        import jinja2  # only to name its error

        try:
            encoded = tokenizer.apply_chat_template(
                list(dialogue), add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        except jinja2.TemplateError as error:
            raise UsageError(f"The model's chat template refused the dialogue: {error}") from error
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
