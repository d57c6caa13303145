"""Where replies come from. The screen knows these protocols only, never a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from emowatch.records import Alarm, BankInfo, FinishReason, ReplyToken, SteeringChange

if TYPE_CHECKING:
    from emowatch.bank import ProbeBank
    from emowatch.model.loading import LoadedModel
    from emowatch.outbox import Counts
    from emowatch.plugins import PluginSpec
    from emowatch.streaming import Stream
    from emowatch.watching import Watch

Message = Mapping[str, str]


class Reply(Protocol):
    """One reply while it is written: iterate in one thread, look and cancel from others."""

    def __iter__(self) -> Iterator[ReplyToken]:
        """Yield each token as it comes; raises `EmowatchError` where the model fails."""

    def cancel(self) -> None:
        """Ask the model to stop; may be called twice, and after the end."""

    @property
    def alarms(self) -> Sequence[Alarm]:
        """The alarms raised so far, oldest first."""

    @property
    def steerings(self) -> Sequence[SteeringChange]:
        """What was done to the residual so far, change by change."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the reply ended; `None` while it runs."""


class ReplySource(Protocol):
    """Answers a conversation with scored tokens."""

    @property
    def model_name(self) -> str:
        """What the model is called."""

    @property
    def banks(self) -> tuple[BankInfo, ...]:
        """The banks whose scores every token carries, in that order."""

    def reply(self, messages: Sequence[Message]) -> Reply:
        """Begin to answer the last message of a dialogue.

        Raises:
            EmowatchError: if the dialogue cannot be answered.
        """


class ModelSource:
    """Replies of a loaded model, watched by banks."""

    def __init__(
        self,
        loaded: LoadedModel,
        banks: Sequence[ProbeBank],
        *,
        plugins: Sequence[PluginSpec] = (),
        certificate: Mapping[str, Any] | None = None,
        system: str | None = None,
        max_new_tokens: int = 200,
        strict: bool = False,
        seed: int | None = None,
        **generate: Any,
    ) -> None:
        """Keep what each reply needs; `generate` is handed to ``model.generate`` unchanged.

        All replies are turns of one session, which begins with the first and ends with `close`.
        """
        self._loaded = loaded
        self._banks = list(banks)
        self._plugins = plugins
        self._certificate = certificate
        self._system = system
        self._max_new_tokens = max_new_tokens
        self._strict = strict
        self._seed = seed
        self._generate = generate
        self._watch: Watch | None = None
        self._failures: Mapping[str, int] = {}
        self.queues: Mapping[str, Counts] = {}
        """What became of the calls of each plugin behind a queue; known once it is closed."""
        self._running: Stream | None = None

    @property
    def model_name(self) -> str:
        """The name the model was asked by."""
        return self._loaded.name

    @property
    def banks(self) -> tuple[BankInfo, ...]:
        """What is known of the banks."""
        return tuple(bank.info for bank in self._banks)

    @property
    def plugin_failures(self) -> Mapping[str, int]:
        """How often each plugin failed, also while the session was closed."""
        return self._failures

    def reply(self, messages: Sequence[Message]) -> Reply:
        """Start the model on a dialogue; each turn is seeded with a number of its own."""
        from emowatch.streaming import answer  # brings torch, which takes seconds

        watch = self._open()
        system = [{"role": "system", "content": self._system}] if self._system else []
        seed = None if self._seed is None else self._seed + len(watch.trace.turns)
        running = answer(
            watch,
            [*system, *messages],
            max_new_tokens=self._max_new_tokens,
            seed=seed,
            **self._generate,
        )
        self._running = running
        return _StreamedReply(running)

    def close(self) -> None:
        """End the session: hooks off the model, logs complete, queues empty or 5 s over.

        Harmless when there is none.
        """
        if self._running is not None:
            self._running.close()  # waits for the worker, which needs the hooks until it ends
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.__exit__(None, None, None)
            watch.plugins.flush(watch.session)
            self.queues = watch.plugins.counts

    def _open(self) -> Watch:
        if self._watch is None:
            from emowatch.watching import watch  # brings torch, which takes seconds

            opened = watch(
                self._loaded.model,
                self._loaded.tokenizer,
                probes=self._banks,
                plugins=self._plugins,
                model_name=self._loaded.name,
                certificate=self._certificate,
                strict=self._strict,
                blocks=self._loaded.blocks,
                seed=self._seed,
            )
            self._failures = opened.plugins.errors
            self._watch = opened.__enter__()
        return self._watch


class _StreamedReply:
    """A `Stream` as the screen wants it."""

    def __init__(self, running: Stream) -> None:
        self._stream = running

    def __iter__(self) -> Iterator[ReplyToken]:
        return iter(self._stream)

    def cancel(self) -> None:
        self._stream.cancel()

    @property
    def alarms(self) -> Sequence[Alarm]:
        return self._stream.alarms

    @property
    def steerings(self) -> Sequence[SteeringChange]:
        return self._stream.steerings

    @property
    def finish_reason(self) -> FinishReason | None:
        turn = self._stream.turn
        return None if turn is None else turn.finish_reason
