"""The watch: hooks on one model, and what each forward sets going.

Positions decide, never call counts: what a forward read follows from its attention mask.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from emowatch.bank import ProbeBank, load_bank
from emowatch.decoding import Decoding, current_decoding
from emowatch.dispatch import Dispatcher, OnPluginError
from emowatch.errors import UnsupportedError, UsageError
from emowatch.model.blocks import Blocks, find_blocks
from emowatch.model.loading import name_of_model
from emowatch.model.segments import SegmentParser
from emowatch.model.tap import Forward, Tap
from emowatch.plugins import PluginSpec, make_plugin_manager
from emowatch.records import FinishReason, ReplyToken, Session, TokenScore
from emowatch.steering import Mixer, Wish
from emowatch.text import clean_line
from emowatch.trace import TokenTable, Trace
from emowatch.watching.reading import beyond_training, fetch, make_readers
from emowatch.watching.telling import Teller
from emowatch.watching.turns import RunningTurn, begin_turn

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
    was found. Greedy search, sampling, left-padded batches and ``num_return_sequences`` are
    watched; every other way of decoding is refused with a reason.

    Args:
        model: a decoder-only causal LM of transformers.
        tokenizer: its tokenizer; tells system, user and reply apart by its chat template.
        probes: a bank, its name, path or hub id, or several of them.
        plugins: names, ``(name, options)`` pairs, ``"name:key=value"`` strings or objects.
        layers: score at each bank's primary layer, or at all of its layers.
        blocks: dotted path of the block list where it is not found by itself.
        model_name: what the session calls the model; by default its hub id or folder name.
        certificate: the doctor's findings, kept with the session.
        strict: refuse banks trained with another tokenizer, template or weights.
        on_plugin_error: switch a failing plugin off, or raise.
        seed: the seed that you sample with, kept with the session; torch's own where it is not
            given. It sets nothing.

    Raises:
        UsageError: for an unknown bank.
        ProbeMismatchError: for a bank of another model.
        UnsupportedError: for a model that cannot be watched.
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
    structure = find_blocks(model, blocks)
    name = model_name or name_of_model(model)
    for bank in found:
        differing = bank.check_fits(model, structure, tokenizer, model_name=name, strict=strict)
        if differing:
            sys.stderr.write(
                f"emowatch: the bank {clean_line(bank.card.name)} was trained with other "
                f"{' and '.join(differing)} than this model's; its scores may be off.\n"
            )
        if beyond := beyond_training(bank.card):
            sys.stderr.write(f"emowatch: the bank {clean_line(bank.card.name)} {beyond}\n")
    session = Session(
        id=uuid.uuid4().hex,
        model=name,
        banks=tuple(bank.info for bank in found),
        n_layers=structure.n_layers,
        d_model=structure.d_model,
        seed=torch.initial_seed() if seed is None else seed,
        certificate=dict(certificate or {}),
    )
    dispatcher = Dispatcher(make_plugin_manager(plugins), on_error=on_plugin_error)
    return Watch(model, structure, tokenizer, found, layers, session, dispatcher)


class Watch:
    """A session on one model; made by `watch`, used as a context manager.

    Attributes:
        session: what plugins are told of the session.
        plugins: calls the plugins, and knows which of them failed.
        tokenizer: the model's tokenizer.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Blocks,
        tokenizer: Any,
        banks: Sequence[ProbeBank],
        layers: Literal["primary", "all"],
        session: Session,
        plugins: Dispatcher,
    ) -> None:
        """Assemble; use `watch`."""
        self.session = session
        self.plugins = plugins
        self.tokenizer = tokenizer
        self._readers, wanted = make_readers(banks, layers)
        self._tap = Tap(model, blocks, wanted, self._on_forward, self._on_begin)
        self._teller = Teller(session, banks, self._readers, plugins)
        self._parser = SegmentParser(tokenizer)
        self._mixer = Mixer()
        self._turn: RunningTurn | None = None
        self._turns = 0
        self._seed: int | None = None
        """Of the turn that is to begin, where `seed_turn` was told."""
        self._ended: Any = None
        """Config of the turn that ended last."""

    @property
    def trace(self) -> Trace:
        """What was scored so far."""
        return self._teller.trace

    @property
    def model(self) -> nn.Module:
        """The watched model."""
        return self._tap.model

    def __enter__(self) -> Self:
        """Put the hooks on the model.

        Raises:
            UsageError: if it was entered before; a session begins once.
        """
        if self.trace.complete:
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
            self.trace.complete = True
            self.plugins.tell("session_finished", self.session)

    def end_turn(self, reason: FinishReason | None = None) -> None:
        """Finish the running turn, if any; a reason that is not given is worked out.

        A turn otherwise ends when the next one begins, or with the watch: hooks see
        forwards, not the end of ``generate``.
        """
        turn, self._turn = self._turn, None
        self._tap.steer({})
        self._seed = None
        if turn is not None:
            self._ended = turn.config
            self._mix(turn, [])
            self._teller.tell_turn(turn.finish(reason, self._teller.tables))

    def seed_turn(self, seed: int | None) -> None:
        """Seed torch for the turn that begins next, which keeps the seed among its settings.

        `None` leaves torch as it is.
        """
        self._seed = seed
        if seed is not None:
            torch.manual_seed(seed)

    def note_tokens(self, ids: Sequence[int]) -> ReplyToken | None:
        """Take the tokens just sampled, one per row, before they are read again.

        Returns:
            The first row's token with its scores; `None` once its reply is over.
        """
        turn = self._turn
        offset = None if turn is None else turn.note(ids, self._parser)
        if turn is None or offset is None:
            return None
        scores = tuple(
            _score_at(table, start, offset)
            for table, start in zip(self._teller.tables, turn.starts, strict=True)
        )
        piece = turn.rows[0].text.pieces[offset]
        return ReplyToken(text=piece, token_id=ids[0], by_bank=scores)

    def _on_begin(self) -> None:
        """Drop what the last turn asked to be added before the next turn's prompt is read."""
        if self._tap.steered:
            turn = self._turn
            if turn is None or current_decoding().config is not turn.config:
                self._tap.steer({})

    def _on_forward(self, forward: Forward) -> None:
        decoding = current_decoding()
        if self._ended is not None and decoding.config is self._ended:
            raise UnsupportedError(
                "Could not watch two generations at once on one model: a forward came from one "
                "that another had interrupted. Let each end before the next begins."
            )
        if self._turn is None or decoding.config is not self._turn.config:
            self._begin_turn(decoding, forward)
        else:
            self._continue_turn(self._turn, decoding, forward)

    def _begin_turn(self, decoding: Decoding, forward: Forward) -> None:
        seed, self._seed = self._seed, None
        self.end_turn()
        mask = forward.attention_mask
        extra = [forward.input_ids] if mask is None else [forward.input_ids, mask]
        scores, fetched = fetch([r.score(forward.states, 0) for r in self._readers], extra)
        turn, tokens = begin_turn(
            self._turns,
            decoding,
            seed,
            forward,
            fetched[0],
            None if mask is None else fetched[1],
            self._teller.tables,
            self.tokenizer,
            self._parser,
        )
        self._turn = turn
        self._turns += 1
        wishes: list[Wish] = []
        for token in tokens:
            wishes += self._teller.tell_token(
                scores,
                token.place,
                turn=turn.index,
                sequence=token.sequence,
                position=token.position,
                offset=token.offset,
                segment=token.segment,
            )
        self._steer(turn, wishes)

    def _continue_turn(self, turn: RunningTurn, decoding: Decoding, forward: Forward) -> None:
        rows = len(turn.rows)
        if forward.input_ids.shape != (rows, 1):
            raise UnsupportedError(
                f"Could not follow a forward of shape {tuple(forward.input_ids.shape)} in a turn "
                f"of {rows} rows: one new token per row was expected."
            )
        offset = turn.offset + 1
        extra = [forward.input_ids]
        if decoding.unfinished is not None:  # also of one row: on mps a finished one runs on
            extra.append(decoding.unfinished)
        scores, fetched = fetch([r.score(forward.states, offset) for r in self._readers], extra)
        speaking = fetched[1] if len(fetched) > 1 else None
        wishes: list[Wish] = []
        for r in turn.advance(fetched[0], speaking, self._parser):
            row = turn.rows[r]
            wishes += self._teller.tell_token(
                scores,
                r,
                turn=turn.index,
                sequence=r,
                position=row.position,
                offset=offset,
                segment=row.segment,
            )
        self._steer(turn, wishes)

    def _steer(self, turn: RunningTurn, wishes: Sequence[Wish]) -> None:
        """Add what plugins wish for from the next forward on."""
        if wishes or self._tap.steered:
            self._tap.steer(self._mix(turn, wishes))

    def _mix(self, turn: RunningTurn, wishes: Sequence[Wish]) -> dict[int, Tensor]:
        """Sum and cap wishes, and record what changed."""
        offsets = [row.offset for row in turn.rows]
        additions, changes = self._mixer.mix(wishes, turn.index, offsets)
        self._teller.tell_steering(changes)
        return additions


def _score_at(table: TokenTable, start: int, offset: int) -> TokenScore:
    """Find the score of row 0 at an offset, newest first."""
    for i in range(len(table) - 1, start - 1, -1):
        if (score := table[i]).sequence == 0 and score.offset == offset:
            return score
    raise AssertionError("a token was noted before its state was scored")
