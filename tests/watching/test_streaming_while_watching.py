"""Streaming while watching: the tokens that are told are those that were scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.generation.streamers import BaseStreamer

import emowatch
from emowatch.bank import ProbeBank
from emowatch.records import ReplyToken
from emowatch.streaming import WatchStreamer
from tests.conftest import END_ID
from tests.model.zoo import left_padded, random_ids
from tests.watching.speaking import NEW, PROMPT, Script, speak


class Memory(BaseStreamer):  # type: ignore[misc, unused-ignore]  # untyped before 5
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        """Start empty."""
        self.values: list[Any] = []

    def put(self, value: Tensor) -> None:
        """Keep it."""
        self.values.append(value.flatten().tolist())

    def end(self) -> None:
        """Keep that, too."""
        self.values.append("end")


class OneStepLate(BaseStreamer):  # type: ignore[misc, unused-ignore]  # untyped before 5
    """Hands values on one step late, as transformers 5.23 does on mps."""

    def __init__(self, inner: WatchStreamer) -> None:
        """Connect."""
        self.inner = inner
        self.held: list[Tensor] = []
        self.is_prompt = True

    def put(self, value: Tensor) -> None:
        """Hand on the prompt at once, and a token when the next one comes."""
        if self.is_prompt:
            self.inner.put(value)
            self.is_prompt = False
            return
        self.held.append(value)
        if len(self.held) == 2:
            self.inner.put(self.held.pop(0))

    def end(self) -> None:
        """Hand on what is left."""
        for value in self.held:
            self.inner.put(value)
        self.inner.end()


def test_a_streamer_makes_the_last_token_known(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Hooks see what the model reads, and it never reads its last token."""
    heard: list[ReplyToken] = []
    inner = Memory()
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        streamer = WatchStreamer(watch, inner, on_token=heard.append)
        output = speak(model, random_ids(1, PROMPT), streamer=streamer)
        assert len(watch.trace.turns) == 1, "the turn ends with the reply, not with the watch"
    reply = tuple(output[0, PROMPT:].tolist())
    assert watch.trace.turns[0].token_ids == reply
    assert tuple(token.token_id for token in heard) == reply
    assert [token.offset for token in heard] == list(range(len(reply)))
    assert inner.values == [random_ids(1, PROMPT).tolist()[0], *([token] for token in reply), "end"]
    for token, score in zip(heard, watch.trace.reply(), strict=True):
        assert np.array_equal(token.scores.array, score.scores.array)


def test_tokens_that_are_told_late_keep_their_scores(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """On mps a token is told of after the next forward has run."""
    heard: list[list[ReplyToken]] = [[], []]
    turns = []
    for late in (False, True):
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
            streamer: Any = WatchStreamer(watch, on_token=heard[late].append)
            if late:
                streamer = OneStepLate(streamer)
            speak(model, random_ids(1, PROMPT), streamer=streamer, min_new_tokens=NEW)
        turns += watch.trace.turns
    assert turns[0].token_ids == turns[1].token_ids
    for on_time, late_one in zip(*heard, strict=True):
        assert (on_time.token_id, on_time.offset) == (late_one.token_id, late_one.offset)
        assert on_time.text == late_one.text
        assert np.array_equal(on_time.scores.array, late_one.scores.array)


def test_a_stream_of_several_rows_tells_of_the_first(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """And falls silent when that one has ended, while the others go on."""
    heard: list[ReplyToken] = []
    script = Script([40, 41, END_ID], [50] * NEW)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        streamer = WatchStreamer(watch, on_token=heard.append)
        ids, mask = left_padded((4, PROMPT))
        speak(model, ids, mask, logits_processor=[script], streamer=streamer)
    assert [token.token_id for token in heard] == [40, 41, END_ID]
    first, second = watch.trace.turns
    assert (first.token_ids, first.finish_reason) == ((40, 41, END_ID), "stop")
    assert (second.token_ids, second.finish_reason) == ((50,) * NEW, "length")


def test_candidates_that_were_kept_are_told_one_by_one(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A round hands over several tokens at once, each of which has its own score."""
    told: list[ReplyToken] = []
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        streamer = WatchStreamer(watch, on_token=told.append)
        for _ in range(2):  # a streamer may be used again
            output = speak(
                model,
                random_ids(1, PROMPT),
                streamer=streamer,
                prompt_lookup_num_tokens=3,
                max_new_tokens=20,
                eos_token_id=-1,  # none; before transformers 5 look-up fails without any
            )
    reply = output[0, PROMPT:].tolist()
    assert [token.token_id for token in told] == 2 * reply
    assert [token.by_bank[0] for token in told] == [
        score for turn in (0, 1) for score in watch.trace.reply(turn)
    ]
    assert [turn.finish_reason for turn in watch.trace.turns] == ["length", "length"]


def test_a_streamer_that_is_used_after_a_failure_keeps_prompts_to_itself(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """transformers does not tell it when a generation fails; the next prompt is nobody's reply."""
    calls = 0

    def strike(ids: Tensor, _: Any, **__: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("lightning")
        return torch.zeros(len(ids), dtype=torch.bool)

    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        streamer = WatchStreamer(watch)
        options: dict[str, Any] = {"streamer": streamer, "eos_token_id": None}
        with pytest.raises(RuntimeError, match="lightning"):
            speak(model, random_ids(1, PROMPT), stopping_criteria=[strike], **options)
        output = speak(model, random_ids(1, 20, seed=2), **options)
    first, second = watch.trace.turns
    assert first.finish_reason == "failed"
    assert len(first.token_ids) <= first.reply_tokens == 2
    assert second.token_ids == tuple(output[0, 20:].tolist())
