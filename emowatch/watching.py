"""The loop from ``generate`` to plugins: read, score, keep, tell, steer.

Positions decide, never call counts: what a forward read follows from its attention mask.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emowatch.bank import ProbeBank, load_bank
from emowatch.bank.heads import Heads
from emowatch.decoding import Decoding, current_decoding
from emowatch.errors import UnsupportedError, UsageError
from emowatch.model.blocks import find_blocks
from emowatch.model.segments import SegmentParser
from emowatch.model.tap import Forward, Tap
from emowatch.plugins import Dispatcher, OnPluginError, PluginSpec, make_plugin_manager
from emowatch.records import (
    FinishReason,
    Floats,
    ReplyToken,
    Scores,
    Segment,
    Session,
    Steering,
    TokenScore,
    Turn,
)
from emowatch.steering import combine, resolve
from emowatch.text import clean_line
from emowatch.trace import TokenTable, Trace
from emowatch.wording import ReplyText

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
        model_name: what the session calls the model.
        certificate: the doctor's findings, kept with the session.
        strict: refuse banks trained with another tokenizer, template or weights.
        on_plugin_error: switch a failing plugin off, or raise.

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
    sources = [probes] if isinstance(probes, str | Path | ProbeBank) else list(probes)
    if not sources:
        raise UsageError('No bank was named: pass probes=, such as probes="demo-ekman7".')
    found = [s if isinstance(s, ProbeBank) else load_bank(s) for s in sources]
    names = [bank.card.name for bank in found]
    if len(set(names)) < len(names):
        raise UsageError(f"Two banks go by the same name: {', '.join(names)}.")
    structure = find_blocks(model, blocks)
    name = model_name or getattr(getattr(model, "config", None), "name_or_path", "") or "model"
    for bank in found:
        differing = bank.check_fits(model, structure, tokenizer, model_name=name, strict=strict)
        if differing:
            sys.stderr.write(
                f"emowatch: the bank {clean_line(bank.card.name)} was trained with other "
                f"{' and '.join(differing)} than this model's; its scores may be off.\n"
            )
    session = Session(
        id=uuid.uuid4().hex,
        model=str(name),
        banks=tuple(bank.info for bank in found),
        n_layers=structure.n_layers,
        d_model=structure.d_model,
        seed=torch.initial_seed(),
        certificate=dict(certificate or {}),
    )
    manager = make_plugin_manager(plugins)
    dispatcher = Dispatcher(manager, on_error=on_plugin_error)
    readers = [_Reader.of(bank, layers) for bank in found]
    wanted = sorted({layer for reader in readers for layer in reader.layers})
    watcher = Watch(session, found, readers, dispatcher, tokenizer)
    watcher._tap = Tap(model, structure, wanted, watcher._on_forward, watcher._on_begin)
    for reader in readers:
        reader.slots = [wanted.index(layer) for layer in reader.layers]
    return watcher


@dataclass(slots=True)
class _Reader:
    """How one bank takes its part of what the tap reads."""

    name: str
    layers: tuple[int, ...]
    primary: int
    """Place of the primary layer in `layers`."""
    heads: Heads
    labels: tuple[str, ...]
    slots: list[int] = field(default_factory=list)
    """Places of `layers` among the tap's states."""

    @classmethod
    def of(cls, bank: ProbeBank, which: Literal["primary", "all"]) -> _Reader:
        card = bank.card
        layers = card.layers if which == "all" else (card.primary,)
        return cls(
            card.name, layers, layers.index(card.primary), bank.heads_at(layers), card.labels
        )

    def score(self, states: Sequence[Tensor], offset: int) -> Tensor:
        """Score ``[rows, slice, d_model]`` per layer into ``[layers, rows · slice, labels]``."""
        chosen = [states[slot].flatten(0, 1) for slot in self.slots]
        home = chosen[0].device
        self.heads = self.heads.to(home)
        # Under the caller's autocast the heads would be computed in half precision.
        with torch.autocast(home.type, enabled=False):
            return self.heads.scores(torch.stack([s.to(home) for s in chosen]), offset)


@dataclass(slots=True)
class _Row:
    """One sequence of the running turn."""

    prompt_tokens: int
    position: int
    """Position of the newest state."""
    text: ReplyText
    segment: Segment = "reply"
    finished: bool = False


@dataclass(slots=True)
class _Turn:
    """The running call of ``generate``."""

    index: int
    config: Any
    settings: Mapping[str, Any]
    rows: list[_Row]
    offset: int
    limit: int | None
    """Longest reply in tokens, where one was set."""
    first_row: list[int]
    """Per bank, the place in its table where this turn begins."""
    told: int = 0
    """Steps that a streamer has told of."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """A plugin's answer to `steer`, checked."""

    row: int
    steering: Steering
    vector: Tensor
    """``[d_model]``: unit direction times strength."""


class Watch:
    """A session on one model; made by `watch`, used as a context manager.

    Attributes:
        trace: what was scored so far.
        session: what plugins are told of the session.
    """

    _tap: Tap

    def __init__(
        self,
        session: Session,
        banks: Sequence[ProbeBank],
        readers: Sequence[_Reader],
        dispatcher: Dispatcher,
        tokenizer: Any,
    ) -> None:
        """Assemble; use `watch`."""
        self.session = session
        self.plugins = dispatcher
        keeps = [r.layers if len(r.layers) > 1 else () for r in readers]
        self.trace = Trace(session, keeps)
        self._banks = list(banks)
        self._readers = list(readers)
        self._tables: list[TokenTable] = list(self.trace.by_bank.values())
        self._tokenizer = tokenizer
        self._parser = SegmentParser(tokenizer)
        self._turn: _Turn | None = None
        self._turns = 0
        self._ended: Any = None
        """Config of the turn that ended last."""

    @property
    def model(self) -> nn.Module:
        """The watched model."""
        return self._tap.model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._tokenizer

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
        except BaseException:
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
        if turn is not None:
            self._ended = turn.config
        self._tap.steer({})
        if turn is None:
            return
        ends = getattr(turn.config, "eos_token_id", None)
        ends = set(ends if isinstance(ends, list) else [ends])
        for number, row in enumerate(turn.rows):
            spoken = row.text.states
            ended = row.finished or (row.text.ids and row.text.ids[-1] in ends)
            why: FinishReason = reason or "stop"
            if ended:
                why = "stop"
            elif spoken == turn.limit and reason != "failed":
                why = "length"  # also where it was cancelled at its last token
            record = Turn(
                index=turn.index,
                sequence=number,
                prompt_tokens=row.prompt_tokens,
                reply_tokens=spoken,
                finish_reason=why,
                text=row.text.text,
                token_ids=tuple(row.text.ids),
                settings=turn.settings,
                mean_scores=self._means(turn, number),
            )
            self.trace.turns.append(record)
            self.plugins.tell("turn_finished", self.session, turn=record)

    def note_tokens(self, ids: Sequence[int]) -> ReplyToken | None:
        """Take the tokens just sampled, one per row, before they are read again.

        Returns:
            The first row's token with its scores; `None` once its reply is over.
        """
        turn = self._turn
        if turn is None:
            return None
        # Transformers may tell of a step after the next one has run (5.23 does on mps), so
        # the step is counted here.
        offset, turn.told = turn.told, turn.told + 1
        for row, token in zip(turn.rows, ids, strict=True):
            if not row.finished and len(row.text.ids) == offset:
                self._take(row, token)
        spoken = turn.rows[0].text
        if offset >= min(len(spoken.ids), spoken.states):
            return None
        scores = tuple(
            self._score_at(table, start, offset)
            for table, start in zip(self._tables, turn.first_row, strict=True)
        )
        return ReplyToken(text=spoken.pieces[offset], token_id=ids[0], by_bank=scores)

    def _take(self, row: _Row, token: int) -> None:
        row.text.add(token)
        row.segment = self._parser.reply_segment(token, row.segment)

    @staticmethod
    def _score_at(table: TokenTable, start: int, offset: int) -> TokenScore:
        """Find the score of row 0 at an offset, newest first."""
        for i in range(len(table) - 1, start - 1, -1):
            if (score := table[i]).sequence == 0 and score.offset == offset:
                return score
        raise AssertionError("a token was noted before its state was scored")

    # From a forward to scores

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
        self.end_turn()
        rows, width = forward.input_ids.shape
        mask = forward.attention_mask
        extra = [forward.input_ids] if mask is None else [forward.input_ids, mask]
        scores, fetched = self._fetch(forward, 0, extra)
        ids = fetched[0].reshape(rows, width)
        kept = (
            np.ones((rows, forward.past + width), dtype=bool)
            if mask is None
            else fetched[1].reshape(rows, -1) != 0
        )
        if not kept[:, -1].all():
            raise UnsupportedError(
                "Could not watch a batch that is padded on the right: its replies would follow "
                'padding. Set tokenizer.padding_side = "left".'
            )
        positions = kept.cumsum(1) - 1  # [rows, past + width]
        self._turn = _Turn(
            index=self._turns,
            config=decoding.config,
            settings=decoding.settings(),
            rows=[
                _Row(int(kept[r].sum()), int(positions[r, -1]), ReplyText(self._tokenizer))
                for r in range(rows)
            ],
            offset=0,
            limit=decoding.left,
            first_row=[len(table) for table in self._tables],
        )
        self._turns += 1
        wishes: list[_Wish] = []
        for r in range(rows):
            columns = np.flatnonzero(kept[r, forward.past :])
            segments, opening = self._parser.parse_prompt(ids[r, columns].tolist())
            self._turn.rows[r].text.states = 1
            self._turn.rows[r].segment = opening
            for column, segment in zip(columns.tolist(), segments, strict=True):
                last = column == width - 1
                wishes += self._emit(
                    scores,
                    r * width + column,
                    sequence=r,
                    position=int(positions[r, forward.past + column]),
                    offset=0 if last else None,
                    segment=opening if last else segment,
                )
        self._apply(wishes, rows)

    def _continue_turn(self, turn: _Turn, decoding: Decoding, forward: Forward) -> None:
        rows = len(turn.rows)
        if forward.input_ids.shape != (rows, 1):
            raise UnsupportedError(
                f"Could not follow a forward of shape {tuple(forward.input_ids.shape)} in a turn "
                f"of {rows} rows: one new token per row was expected."
            )
        turn.offset += 1
        extra = [forward.input_ids]
        if decoding.unfinished is not None:  # also of one row: on mps a finished one runs on
            extra.append(decoding.unfinished)
        scores, fetched = self._fetch(forward, turn.offset, extra)
        wishes: list[_Wish] = []
        for r, row in enumerate(turn.rows):
            if row.finished:
                continue
            token = int(fetched[0][r])
            if len(row.text.ids) < turn.offset:  # not told by a streamer
                self._take(row, token)
            if len(fetched) > 1 and not fetched[1][r]:
                row.finished = True  # what the model reads from here on is padding
                continue
            row.position += 1
            row.text.states += 1
            wishes += self._emit(
                scores,
                r,
                sequence=r,
                position=row.position,
                offset=turn.offset,
                segment=row.segment,
            )
        self._apply(wishes, rows)

    def _fetch(
        self, forward: Forward, offset: int, whole_numbers: Sequence[Tensor]
    ) -> tuple[list[Floats], list[NDArray[np.int32]]]:
        """Score a forward and bring scores and a few integers to the host in one copy.

        Returns:
            Per bank ``[layers, rows · slice, labels]``, and the integers, flat.
        """
        scores = [reader.score(forward.states, offset) for reader in self._readers]
        home = scores[0].device
        flat = [score.to(home).flatten() for score in scores]
        flat += [n.to(home, torch.int32).flatten().view(torch.float32) for n in whole_numbers]
        host = torch.cat(flat).cpu().numpy()
        host.flags.writeable = False
        parts = np.split(host, np.cumsum([part.numel() for part in flat])[:-1])
        made = [part.reshape(score.shape) for part, score in zip(parts, scores, strict=False)]
        return made, [part.view(np.int32) for part in parts[len(scores) :]]

    # From scores to plugins

    def _emit(
        self,
        scores: Sequence[Floats],
        place: int,
        *,
        sequence: int,
        position: int,
        offset: int | None,
        segment: Segment,
    ) -> list[_Wish]:
        """Keep the scores of one token and tell plugins; return their wishes to steer."""
        assert self._turn is not None
        records = []
        for reader, table, of_bank in zip(self._readers, self._tables, scores, strict=True):
            mine = of_bank[:, place]  # [layers, labels]
            table.append(
                turn=self._turn.index,
                sequence=sequence,
                position=position,
                offset=offset,
                segment=segment,
                scores=mine[reader.primary],
                layer_scores=mine if len(reader.layers) > 1 else None,
            )
            if self._heard:
                records.append(table[len(table) - 1])
        wishes: list[_Wish] = []
        for record in records:
            self.plugins.tell("token_scored", self.session, score=record)
        for record in records:
            self._judge(record)
        if offset is not None and self.plugins.has("steer"):
            for record in records:
                for name, wish in self.plugins.call("steer", self.session, score=record):
                    try:
                        vector = self._resolve(wish)
                    except UsageError as error:
                        self.plugins.switch_off(name, "steer", error, self.session)
                    else:
                        wishes.append(_Wish(sequence, wish, vector))
        return wishes

    def _resolve(self, wish: Steering) -> Tensor:
        return resolve(wish, self._banks, self.session.n_layers, self.session.d_model)

    @property
    def _heard(self) -> bool:
        return any(self.plugins.has(hook) for hook in ("token_scored", "judge", "steer"))

    def _judge(self, record: TokenScore) -> None:
        if not self.plugins.has("judge"):
            return
        for _, answer in self.plugins.call("judge", self.session, score=record):
            for alarm in answer if isinstance(answer, Sequence) else (answer,):
                self.trace.alarms.append(alarm)
                self.plugins.tell("alarm_raised", self.session, alarm=alarm)

    def _apply(self, wishes: Sequence[_Wish], rows: int) -> None:
        if not wishes and not self._tap.steered:
            return
        assert self._turn is not None
        vectors: dict[tuple[int, int], list[Tensor]] = {}
        for wish in wishes:
            vectors.setdefault((wish.steering.layer, wish.row), []).append(wish.vector)
            self.trace.steerings.append((self._turn.index, wish.steering))
        self._tap.steer(combine(vectors, rows))

    def _means(self, turn: _Turn, sequence: int) -> dict[str, Scores]:
        means = {}
        for table, start in zip(self._tables, turn.first_row, strict=True):
            means[table.bank.name] = Scores(
                table.bank.labels, table.reply_mean(start, turn.index, sequence)
            )
        return means
