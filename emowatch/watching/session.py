"""The watch: one session, from the hooks it puts on a model until it takes them off."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import nn

from emowatch.bank import ProbeBank, load_bank
from emowatch.decoding import Decoding, current_decoding
from emowatch.dispatch import Dispatcher, OnPluginError
from emowatch.errors import UnsupportedError, UsageError
from emowatch.model.blocks import Blocks, find_blocks
from emowatch.model.examined import recall
from emowatch.model.forward import Forward
from emowatch.model.loading import name_of_model
from emowatch.model.readable import check_speaks
from emowatch.model.tap import Tap
from emowatch.model.weights import process_of
from emowatch.plugins import PluginSpec, make_plugin_manager
from emowatch.records import FinishReason, ReplyToken, Session
from emowatch.text import clean_line
from emowatch.trace import Trace
from emowatch.watching.cautions import tell_of_training, tell_where_trained
from emowatch.watching.following import Follower
from emowatch.watching.reading import make_readers
from emowatch.watching.telling import Teller

ProbeSource = str | Path | ProbeBank


def watch(
    model: nn.Module,
    tokenizer: Any,
    *,
    probes: ProbeSource | Sequence[ProbeSource],
    plugins: Sequence[PluginSpec] = (),
    layers: Literal["primary", "all"] = "primary",
    blocks: str | None = None,
    model_name: str | None = None,
    certificate: Mapping[str, Any] | None = None,
    strict: bool = False,
    on_plugin_error: OnPluginError = "disable",
    seed: int | None = None,
) -> Watch:
    """Score every token that `model` generates inside the ``with`` block.

    ``model.generate`` returns exactly what it returned before, and the model is left as it
    was found. Greedy search, sampling, batches, beam search, assisted decoding, every cache of
    transformers, and your own loops over ``model(...)`` are watched; what cannot be followed
    is refused with a reason.

    Where tensor parallelism splits a model among processes, watch it in each of them: each keeps
    a trace, and the first alone calls plugins and writes to stderr.

    Args:
        model: a decoder-only causal LM of transformers.
        tokenizer: its tokenizer; tells system, user and reply apart by its chat template.
        probes: a bank, its name, path or hub id, or several of them.
        plugins: names, ``(name, options)`` pairs, ``"name:key=value"`` strings or objects.
        layers: score at each bank's primary layer, or at all of its layers.
        blocks: dotted path of the block list where it is not found by itself.
        model_name: what the session calls the model; by default its hub id or folder name.
        certificate: the doctor's findings, kept with the session; by default those of
            `emowatch.doctor.examine`, where it examined this very model as it is now.
        strict: refuse banks trained with another tokenizer, template or weights.
        on_plugin_error: switch a failing plugin off, or raise.
        seed: the seed that you sample with, kept with the session; torch's own where it is not
            given. It sets nothing.

    Raises:
        UsageError: for an unknown bank, and for the name of a model instead of a model.
        ProbeMismatchError: for a bank of another model.
        UnsupportedError: for a model that cannot be watched, or not steered as it is split.
        PluginError: for a plugin that does not load.

    Example:
        >>> with emowatch.watch(model, tokenizer, probes="demo-ekman7") as w:  # doctest: +SKIP
        ...     output = model.generate(**inputs, max_new_tokens=50)
        >>> w.trace.tokens[-1].scores["joy"]  # doctest: +SKIP
    """
    sources = [probes] if isinstance(probes, str | Path | ProbeBank) else list(probes or ())
    if not sources:
        raise UsageError('No bank was named: pass probes=, such as probes="demo-ekman7".')
    found = [s if isinstance(s, ProbeBank) else load_bank(s) for s in sources]
    names = [bank.card.name for bank in found]
    if len(set(names)) < len(names):
        raise UsageError(f"Two banks go by the same name: {', '.join(names)}.")
    if isinstance(model, str | Path):
        raise UsageError(
            f"Could not watch {clean_line(str(model))!r}: that is a name. Load the model first, "
            "with emowatch.load_model or transformers, and pass its model and tokenizer."
        )
    speaker, base = model, getattr(model, "get_base_model", None)
    if base is not None:  # peft runs the model that it wraps, adapters and all
        model = base()
    check_speaks(model)
    if layers not in ("primary", "all"):
        raise UsageError(f'Could not watch layers={layers!r}: it is "primary" or "all".')
    if tokenizer is not None and not callable(getattr(tokenizer, "decode", None)):
        raise UsageError(f"Could not use a {type(tokenizer).__name__} as the model's tokenizer.")
    structure = find_blocks(model, blocks)
    name = model_name or name_of_model(model)
    process, processes = process_of(model)
    if model.training and not process:
        tell_of_training()
    for bank in found:
        differing = bank.check_fits(model, structure, tokenizer, model_name=name, strict=strict)
        if process:
            continue
        if differing:
            sys.stderr.write(
                f"emowatch: the bank {clean_line(bank.card.name)} was trained with other "
                f"{' and '.join(differing)} than this model's; its scores may be off.\n"
            )
        tell_where_trained(bank.info)
    session = Session(
        id=uuid.uuid4().hex,
        model=name,
        banks=tuple(bank.info for bank in found),
        n_layers=structure.n_layers,
        d_model=structure.d_model,
        seed=torch.initial_seed() if seed is None else seed,
        certificate=dict(recall(model, structure.path) if certificate is None else certificate),
    )
    # Only one of the processes that share a model speaks: each has the same scores.
    dispatcher = Dispatcher(
        make_plugin_manager(() if process else plugins), on_error=on_plugin_error
    )
    if processes > 1 and (dispatcher.has("steer") or dispatcher.has("steer_turn")):
        raise UnsupportedError(
            f"Could not steer {clean_line(name)}: it is split among {processes} processes, and "
            "what is added in one of them alone would part their states. Leave the plugins that "
            "steer out, or load the model in one process."
        )
    alone = processes == 1
    return Watch(speaker, model, structure, tokenizer, found, layers, session, dispatcher, alone)


class Watch:
    """A session on one model; made by `watch`, used as a context manager.

    Attributes:
        session: what plugins are told of the session.
        plugins: calls the plugins, and knows which of them failed.
        speaker: the model as it was given, whose ``generate`` is to be called.
        tokenizer: the model's tokenizer.
    """

    def __init__(
        self,
        speaker: nn.Module,
        model: nn.Module,
        blocks: Blocks,
        tokenizer: Any,
        banks: Sequence[ProbeBank],
        layers: Literal["primary", "all"],
        session: Session,
        plugins: Dispatcher,
        alone: bool = True,
    ) -> None:
        """Assemble; use `watch`."""
        self.session = session
        self.plugins = plugins
        self.speaker = speaker
        self.tokenizer = tokenizer
        readers, wanted = make_readers(banks, layers)
        self._tap = Tap(model, blocks, wanted, self._on_forward, self._on_begin)
        self._teller = Teller(session, banks, readers, plugins, alone=alone)
        self._follower = Follower(self._tap, readers, self._teller, tokenizer)
        self._decoding: Decoding | None = None
        """The loop that runs the current forward."""

    @property
    def trace(self) -> Trace:
        """What was scored so far; asked for after ``generate`` has returned, its turn is in it.

        Another thread than the one that generates may miss the last fifteen tokens meanwhile, where
        no plugin and no stream has to hear of each at once.
        """
        self._follower.settle()
        return self._teller.trace

    @property
    def model(self) -> nn.Module:
        """The watched model; where peft wraps one, that which is wrapped."""
        return self._tap.model

    def __enter__(self) -> Self:
        """Put the hooks on the model.

        Raises:
            UsageError: if it was entered before; a session begins once.
        """
        if self._teller.trace.complete:
            raise UsageError("This watch is over. Make a new one with emowatch.watch.")
        self._tap.__enter__()
        try:
            self.plugins.tell("session_started", self.session)
        except BaseException:  # without __enter__ there is no __exit__ to take the hooks off
            self._close("failed")
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the hooks off and finish turn and session."""
        self._close("failed" if error is not None else None)

    def _close(self, reason: FinishReason | None) -> None:
        self._tap.close()
        try:
            self.end_turn(reason)
        finally:
            self._teller.trace.complete = True
            self.plugins.tell("session_finished", self.session)
            self.plugins.finish(self.session)

    def end_turn(self, reason: FinishReason | None = None) -> None:
        """Finish the running turn, if any; a reason that is not given is worked out.

        A turn otherwise ends when the next one begins, when `trace` is asked for, or with the
        watch: hooks see forwards, not the end of ``generate``.
        """
        self._follower.end(reason)

    @property
    def stopped(self) -> tuple[int, ...]:
        """The rows of the running turn that an alarm asked to end.

        ``generate`` ends them by itself; a loop of your own has to look.
        """
        return tuple(sorted(self._teller.stopped))

    def take_system(self) -> str | None:
        """Take the system prompt that an alarm wants for the next turn; `None` where none does.

        `answer` and the chat take it by themselves; where you call ``generate``, put it
        into your next prompt.
        """
        wanted, self._teller.next_system = self._teller.next_system, None
        return wanted

    def seed_turn(self, seed: int | None) -> None:
        """Seed torch for the turn that begins next, which keeps the seed among its settings.

        `None` leaves torch as it is.
        """
        self._follower.seed = seed
        if seed is not None:
            torch.manual_seed(seed)

    def note_tokens(self, ids: Sequence[int]) -> ReplyToken | None:
        """Take the tokens just sampled, one per row, before they are read again.

        Returns:
            The first row's token with its scores; `None` once its reply is over.
        """
        return self._follower.note(ids)

    def _on_begin(self, forward: Forward) -> bool:
        """See which loop runs a forward that is to begin; drafts of candidates are not read.

        What was done in the last turn is dropped before the next turn's prompt is read.
        """
        self._decoding = self._follower.expected() or current_decoding(self.model)
        if self._decoding is None:
            return False
        self._follower.prepare(self._decoding, forward)
        return True

    def _on_forward(self, forward: Forward) -> None:
        decoding, self._decoding = self._decoding, None  # it holds the loop's cache alive
        assert decoding is not None
        self._follower.take(decoding, forward)
