"""From forwards to scored states: which columns each is the first to read, however it is decoded.

Columns decide, never call counts: what a forward is the first to read follows from what was read
and kept before it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emowatch.decoding import Decoding, Listener, current_decoding, is_called_at
from emowatch.errors import TapError, UnsupportedError
from emowatch.model.blocks import text_config
from emowatch.model.forward import Forward
from emowatch.model.readable import check_uncompiled
from emowatch.model.segments import SegmentParser
from emowatch.model.tap import Tap
from emowatch.records import FinishReason, Floats, ReplyToken, TokenScore
from emowatch.trace import TokenTable
from emowatch.watching.cautions import Cautions, tell_of_no_stop
from emowatch.watching.prompts import Prompt, prompt_columns
from emowatch.watching.reading import Reader, fetch
from emowatch.watching.settling import Settler
from emowatch.watching.telling import Teller
from emowatch.watching.turns import RunningTurn, begin_turn
from emowatch.watching.waiting import Waiting


class Follower:
    """Follows the generations on one model, one turn after the other.

    Attributes:
        turn: the running turn; `None` between turns.
        seed: torch's for the turn that is to begin, where it was set.
    """

    def __init__(self, tap: Tap, readers: Sequence[Reader], teller: Teller, tokenizer: Any) -> None:
        """Begin between turns."""
        self.turn: RunningTurn | None = None
        self.seed: int | None = None
        self._tap = tap
        self._readers = readers
        self._teller = teller
        self._tokenizer = tokenizer
        self._parser = SegmentParser(tokenizer)
        self._settler = Settler(tap, teller)
        context = getattr(text_config(tap.model), "max_position_embeddings", None)
        self._cautions = Cautions(context)
        self._turns = 0
        self._waiting = Waiting()
        self._ended: list[weakref.ref[Any]] = []
        """Configs of turns that ended and whose loop may still run."""

    def expected(self) -> Decoding | None:
        """Give the loop that runs a forward where it is known without looking through the stack.

        A loop of single steps computes next when it has said what it keeps. `None` tells nothing.
        """
        turn = self.turn
        if turn is None or turn.place is None:
            return None
        place, turn.place = turn.place, None
        if turn.verdict is None or turn.loop != "steps" or turn.compiled or not is_called_at(place):
            return None
        return Decoding("steps", turn.config, unfinished=turn.verdict.logical_not())

    def prepare(self, decoding: Decoding, forward: Forward) -> None:
        """Drop what was done in the last turn before another's prompt is read, and ask what is to
        be done throughout that one.

        Raises:
            UnsupportedError: for a loop that cannot be steered so.
        """
        steers_turns = self._teller.steers_turns
        if not (steers_turns or self._tap.steered):
            return
        turn = self.turn
        if turn is None or not turn.goes_on_with(decoding, forward):
            seed = self.seed
            self.end(None)
            self.seed = seed
            if steers_turns:
                rows = int(forward.input_ids.shape[0])
                self._settler.begin(self._turns, rows, decoding, prompt_columns(decoding, forward))
        elif turn.loop == "own" and forward.past == 0 and self._settler.steers_by_token:
            raise UnsupportedError(
                "Could not steer a loop token by token that reads its whole text again: tokens "
                "that were read unsteered would be steered too. Pass past_key_values."
            )

    def take(self, decoding: Decoding, forward: Forward) -> None:
        """Read one forward and tell of what it settles.

        Raises:
            UnsupportedError: for a forward that cannot be followed.
        """
        if decoding.config is not None and any(e() is decoding.config for e in self._ended):
            raise UnsupportedError(
                "Could not watch two generations at once on one model: a forward came from one "
                "that another had interrupted. Let each end before the next begins."
            )
        turn = self.turn
        if turn is None or not turn.goes_on_with(decoding, forward):
            self._begin_turn(decoding, forward)
        elif turn.seen < turn.prompt.columns - 1 or turn.loop in ("assisted", "beams"):
            self._continue_turn(turn, decoding, forward)
        else:
            self._step(turn, decoding, forward)

    def note(self, ids: Sequence[int]) -> ReplyToken | None:
        """Take the tokens just sampled, one per row, before they are read again.

        Returns:
            The first row's token with its scores; `None` once its reply is over.
        """
        turn = self.turn
        if turn is None:
            return None
        self._score_waiting(turn)
        if turn.compiled:
            self._catch_up(turn)
        if turn.loop == "assisted":
            self._settler.tell_kept(turn, ids[0])
        offset = turn.note(ids)
        if offset is None:
            return None
        scores = tuple(
            _score_at(table, start, offset)
            for table, start in zip(self._teller.tables, turn.starts, strict=True)
        )
        piece = turn.rows[0].text.piece(offset)
        return ReplyToken(text=piece, token_id=ids[0], by_bank=scores)

    def end(self, reason: FinishReason | None) -> None:
        """Finish the running turn, if any; a reason that is not given is worked out."""
        if self.turn is not None:
            self._score_waiting(self.turn)
        turn, self.turn = self.turn, None
        self._tap.steer({})
        self.seed = None
        if turn is not None:
            self._ended = [ended for ended in self._ended if ended() is not None]
            if turn.config is not None:
                self._ended.append(weakref.ref(turn.config))
            self._settler.release(turn)
            if turn.beams is not None and not self._settler.tell_beams(turn, turn.beams):
                reason = reason or "failed"
            turn.take_last()
            stopped = self._teller.end_turn()
            if stopped and not turn.is_heard:
                tell_of_no_stop(turn.loop)
            self._teller.tell_turn(turn.finish(reason, self._teller.tables, stopped))

    def settle(self) -> None:
        """Score what waits, and finish the running turn where its loop has returned.

        Nothing is done for another thread than the one that runs the turn.
        """
        turn = self.turn
        if turn is not None and turn.is_here and not self._waiting.is_told:
            self._score_waiting(turn)
            if turn.is_over:
                self.end(None)

    def _begin_turn(self, decoding: Decoding, forward: Forward) -> None:
        """Read the first forward of a prompt."""
        check_uncompiled(self._tap.model)
        seed, self.seed = self.seed, None
        if self.turn is not None:
            self.end(None)
        past, columns = forward.past, prompt_columns(decoding, forward)
        last = past + forward.input_ids.shape[1]
        mask = forward.attention_mask if decoding.mask is None else decoding.mask
        known = forward.input_ids if decoding.ids is None else decoding.ids
        extra = [known] if mask is None else [known, mask[:, :columns]]
        scores, fetched = self._read(forward.states, past, last, columns, extra)
        prompt = Prompt(
            fetched[0].reshape(known.shape),
            None if mask is None else fetched[1].reshape(-1, columns),
            columns,
            self._parser,
        )
        turn = begin_turn(
            self._turns,
            decoding,
            seed,
            forward,
            prompt,
            known.shape[1],
            self._teller.tables,
            self._tokenizer,
        )
        self.turn = turn
        self._turns += 1
        if decoding.criteria is not None and turn.loop in ("steps", "assisted"):
            decoding.criteria.append(Listener(self._on_kept, self._on_returned, turn))
            turn.is_heard = True
        if turn.compiled:
            self._tap.expect_compiled(forward.states)
        self._settler.tell_columns(turn, scores, past, last)
        turn.follow(forward)

    def _continue_turn(self, turn: RunningTurn, decoding: Decoding, forward: Forward) -> None:
        """Read more of a prompt, candidates, or a step of a beam search."""
        if turn.loop == "assisted" and decoding.ids is not None:
            self._settler.tell_candidates(turn, decoding.ids)
        first, last = turn.columns(forward)
        scores, _ = self._read(forward.states, first, last, turn.prompt.columns, [])
        self._settler.tell_columns(turn, scores, first, last)
        turn.follow(forward)

    def _step(self, turn: RunningTurn, decoding: Decoding, forward: Forward) -> None:
        """Read one new token of each row."""
        first, last = turn.columns(forward)
        newest = forward.input_ids
        extra = [newest if newest.shape[1] == 1 else newest[:, -1]]
        if decoding.unfinished is not None:  # also of one row: on mps a finished one runs on
            extra.append(decoding.unfinished)
        elif turn.loop == "own" and forward.attention_mask is not None:
            # A mask for a static cache is as wide as the cache.
            extra.append(forward.attention_mask[:, first])
        if self._may_wait(turn, forward):
            self._waiting.add(forward.states, extra)
            turn.seen = last
            if self._waiting.is_due:
                self._score_waiting(turn)
            return
        scores, fetched = self._read(forward.states, first, last, turn.prompt.columns, extra)
        speaking = fetched[1] if len(fetched) > 1 else None
        if turn.compiled and any(np.isnan(of).any() for of in scores):
            raise TapError(
                "A compiled forward left no numbers of some layers: they were not read in the "
                "code, or the model computes NaN. Enter the watch before the model is compiled, or "
                "pass disable_compile=True to generate."
            )
        turn.seen = last
        turn.follow(forward)
        self._settler.tell_step(turn, scores, turn.advance(fetched[0], speaking))

    def _may_wait(self, turn: RunningTurn, forward: Forward) -> bool:
        """Tell whether a step may be scored with later ones: where nobody has to hear of each
        token, and the loop is transformers' own, which changes nothing of what it has handed over.

        A plugin that steers a turn and then fails is to end what it did at the right token.
        """
        return (
            turn.loop == "steps"
            and not (turn.told or turn.compiled or self._teller.is_urgent)
            and not (self._tap.steered and self._teller.is_heard)
            and forward.states[0].shape[1] == 1
        )

    def _score_waiting(self, turn: RunningTurn) -> None:
        """Score the steps of the running turn that wait, and tell of them in their order."""
        if not self._waiting:
            return
        width = len(self._waiting)
        states, extra = self._waiting.together()
        first, columns = turn.seen - width, turn.prompt.columns
        scores, fetched = self._read(states, first, turn.seen, columns, extra)
        by_step = [of.reshape(width, -1) for of in fetched]
        with self._waiting.telling() as steps:
            for step in steps:
                speaking = by_step[1][step] if len(by_step) > 1 else None
                newest = [of[:, step::width] for of in scores]
                self._settler.tell_step(turn, newest, turn.advance(by_step[0][step], speaking))

    def _read(
        self, states: Sequence[Tensor], first: int, last: int, columns: int, extra: Sequence[Tensor]
    ) -> tuple[list[Floats], list[NDArray[np.integer]]]:
        """Score the columns from `first` up to `last`, which are the last of `states`, in a turn
        whose prompt has `columns`, and fetch the scores and some integers."""
        rows, width = states[0].shape[0], last - first
        if width < states[0].shape[1]:
            states = [state[:, -width:] for state in states]
        begin = first - columns + 1
        offset: int | Tensor = max(0, begin)
        if begin + width > 1 and width > 1:
            each = torch.arange(begin, begin + width, device=states[0].device)
            offset = each.clamp_(min=0).repeat(rows)
        scores, fetched = fetch([reader.score(states, offset) for reader in self._readers], extra)
        self._cautions.heed([of[-1, width - 1 :: width, 0] for of in scores], last)
        return scores, fetched

    def _on_returned(self, turn: RunningTurn) -> None:
        """Score what waits when the loop is gone.

        One that failed may be forgotten much later, and in another thread: then it is not the
        running turn's any more, or somebody else's to settle.
        """
        turn.place = None
        if turn is self.turn and turn.is_here:
            # Nobody would see an error here; what waits is scored again where the turn ends.
            with suppress(Exception):
                self._score_waiting(turn)

    def _on_kept(
        self, turn: RunningTurn, ids: Tensor, verdict: Tensor | None, place: int | None
    ) -> Sequence[bool]:
        """Hear which tokens a loop has kept ``[rows, columns]``, and which rows it ends.

        Returns:
            For each row, whether an alarm has asked to end it; nothing where none has.
        """
        if turn is not self.turn:
            return ()
        if turn.compiled:
            self._catch_up(turn)
        if turn.loop == "assisted":
            self._settler.tell_candidates(turn, ids)
        else:
            turn.kept = ids
        turn.place = place
        if verdict is not None and turn.verdict is not None and len(verdict) > 1:
            verdict = (
                verdict | turn.verdict
            )  # a row that has ended reads padding, which ends nothing
        stops: list[bool] = []
        if ends := self._teller.stopped:
            stops = [sequence in ends for sequence in range(len(turn.rows))]
            if verdict is not None:
                verdict = verdict | verdict.new_tensor(stops)
        turn.verdict = verdict
        if self._waiting and verdict is not None and bool(verdict.all()):
            self._score_waiting(turn)  # here an error or Ctrl+C still reaches the caller
        return stops

    def _catch_up(self, turn: RunningTurn) -> None:
        """Read the compiled forward that has run since this was last asked, if one has."""
        decoding = current_decoding(self._tap.model, is_between=True)
        assert decoding is not None and decoding.ids is not None
        read = decoding.ids[:, :-1]  # nobody has read the newest token yet
        if turn.base + read.shape[1] > turn.seen:
            states = self._tap.states_of_compiled()
            self._step(turn, decoding, Forward(read[:, -1:], None, None, states=states))


def _score_at(table: TokenTable, start: int, offset: int) -> TokenScore:
    """Find the score of row 0 at an offset, newest first."""
    for i in range(len(table) - 1, start - 1, -1):
        if (score := table[i]).sequence == 0 and score.offset == offset:
            return score
    raise AssertionError("a token was noted before its state was scored")
