"""Streams in a plain loop: tokens come as they are made, and end when nobody listens."""

from __future__ import annotations

import json
import time
from asyncio import CancelledError
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import UnsupportedError
from emowatch.labels import EKMAN7
from emowatch.records import ReplyToken
from emowatch.streaming import Stream, answer, encode_prompt
from tests.model.zoo import hook_count
from tests.streaming.talking import NEW, Held, Say, endless, streams, wait_for
from tests.watching.speaking import Plugin

# What comes


def test_a_stream_says_what_generate_says(
    begin: Any, model: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Token by token, with offsets 0 to N-1."""
    inputs = encode_prompt(tiny_tokenizer, "hello")
    wanted = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0]
    tokens = list(begin())
    assert [t.token_id for t in tokens] == wanted[inputs["input_ids"].shape[1] :].tolist()
    assert [t.offset for t in tokens] == list(range(len(tokens)))


def test_scores_of_a_stream_are_those_of_a_watch(
    begin: Any, model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
) -> None:
    """Two doors into the same house."""
    with begin() as stream:
        tokens = list(stream)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        inputs = encode_prompt(tiny_tokenizer, "hello")
        model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    for token, score in zip(tokens, watch.trace.reply(), strict=True):
        # A watch that nobody listens to scores several tokens together.
        assert np.allclose(token.scores.array, score.scores.array, atol=1e-6)
        assert token.dominant == score.dominant
    assert np.allclose(stream.trace.tokens.array(), watch.trace.tokens.array(), atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
def test_a_model_with_adapters_speaks_with_them(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """They are what was trained."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    inputs = encode_prompt(tiny_tokenizer, "hello")
    plain = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0]
    adapted: Any = peft.get_peft_model(model, config).eval()
    wanted = adapted.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0]
    assert not torch.equal(plain, wanted)
    bank = ProbeBank.random_for(adapted.get_base_model(), labels=EKMAN7)
    begun = emowatch.stream(
        adapted, tiny_tokenizer, "hello", probes=bank, max_new_tokens=NEW, do_sample=False
    )
    said = [token.token_id for token in begun]
    assert said == wanted[inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Position ids")  # peft's own
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (peft.PromptTuningConfig, "inputs_embeds"),
        (peft.PrefixTuningConfig, "after the 3 in the cache"),
    ],
)
def test_a_trained_prompt_is_not_left_out_in_silence(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, config: Any, reason: str
) -> None:
    """What peft puts before the tokens cannot be told apart; the reply without it is another."""
    prompted = peft.get_peft_model(model, config(task_type="CAUSAL_LM", num_virtual_tokens=3))
    prompted.eval()
    with pytest.raises(UnsupportedError, match=reason):
        list(emowatch.stream(prompted, tiny_tokenizer, "hello", probes=bank, max_new_tokens=NEW))


# How it ends


def test_a_cancelled_stream_stops_within_one_token(begin: Any, model: Any) -> None:
    """And says so; what was made before still comes."""
    hooks = hook_count(model)
    stream = begin(logits_processor=endless(), max_new_tokens=200)
    first = [next(stream) for _ in range(3)]
    stream.cancel()
    made = len(stream.trace.reply())
    rest = list(stream)
    assert len(first) + len(rest) <= made + 2
    assert stream.turn.finish_reason == "cancelled"
    assert stream.turn.reply_tokens == len(first) + len(rest) == len(stream.trace.reply())
    assert stream.trace.complete
    assert hook_count(model) == hooks


@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_cancelling_at_any_token_leaves_a_sound_turn(begin: Any, count: int) -> None:
    """Each of its tokens has one score, wherever it was cut."""
    stream = begin(logits_processor=endless(), max_new_tokens=100)
    for _ in range(count):
        next(stream)
    stream.close()
    turn = stream.turn
    assert turn.finish_reason == "cancelled"
    assert count <= turn.reply_tokens < 100
    assert len(turn.token_ids) == turn.reply_tokens
    assert [t.offset for t in stream.trace.reply()] == list(range(turn.reply_tokens))
    with pytest.raises(StopIteration):
        next(stream)


def test_after_a_cancelled_reply_the_next_one_is_as_ever(begin: Any) -> None:
    """Nothing of the old one may colour it."""
    wanted = [token.token_id for token in begin()]
    stream = begin(logits_processor=endless(), max_new_tokens=200)
    next(stream)
    stream.close()
    assert [token.token_id for token in begin()] == wanted


def test_leaving_the_loop_early_stops_the_model_and_takes_the_hooks_off(
    begin: Any, model: Any
) -> None:
    """The commonest way in which a consumer ends."""
    hooks = hook_count(model)
    stream = begin(logits_processor=endless(), max_new_tokens=200)
    for token in stream:
        if token.offset == 2:
            break
    assert wait_for(lambda: not streams())
    assert hook_count(model) == hooks
    assert stream.turn.finish_reason == "cancelled"


def test_leaving_a_with_block_early_does_the_same(begin: Any, model: Any) -> None:
    """Also by an exception of the consumer's."""
    hooks = hook_count(model)
    with pytest.raises(RuntimeError, match="mine"):
        with begin(logits_processor=endless(), max_new_tokens=200) as stream:
            next(stream)
            raise RuntimeError("mine")
    assert not streams()
    assert hook_count(model) == hooks
    assert stream.turn.finish_reason == "cancelled"


def test_closing_a_finished_stream_changes_nothing(begin: Any) -> None:
    """A loop that ran to its end closes it as well."""
    stream = begin(logits_processor=[Say([40, 41])])
    assert len(list(stream)) == 3
    stream.close()
    stream.close()
    assert stream.turn.finish_reason == "stop"
    assert list(stream) == []


@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_exception_reaches_the_consumer(begin: Any, model: Any, after: int) -> None:
    """A queue that nobody feeds would let the reader wait for ever."""
    hooks = hook_count(model)

    class Failing(Say):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            if self.step >= after:
                raise RuntimeError("lightning")
            return super().__call__(input_ids, scores)

    stream = begin(logits_processor=[Failing([40], for_ever=True)])
    tokens: list[ReplyToken] = []
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="lightning"):
        tokens.extend(iter_into(stream, tokens))
    assert time.monotonic() - started < 10
    assert len(tokens) == after
    assert hook_count(model) == hooks
    assert not streams()
    assert stream.turn.finish_reason == "failed"
    assert list(stream) == []


def iter_into(stream: Stream, tokens: list[ReplyToken]) -> list[ReplyToken]:
    """Read a stream into a list that keeps what came before an exception."""
    for token in stream:
        tokens.append(token)
    return []


def test_an_interrupt_in_the_worker_is_not_swallowed(begin: Any) -> None:
    """KeyboardInterrupt and SystemExit are no Exceptions, and end the stream as well."""

    def interrupt(*_: Any) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(begin(logits_processor=[interrupt]))


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, CancelledError])
def test_what_would_end_a_loop_in_silence_is_told_as_an_error(begin: Any, kind: Any) -> None:
    """A callback that calls `next` on something empty raises such; half a reply is no reply."""

    def run_dry(*_: Any) -> Tensor:
        raise kind

    with pytest.raises(RuntimeError, match=f"The generation raised {kind.__name__}") as caught:
        list(begin(logits_processor=[run_dry]))
    assert isinstance(caught.value.__cause__, kind)


def test_every_thread_that_waits_for_a_token_learns_of_the_end(begin: Any) -> None:
    """The end is said once, and would wake one of them only."""
    held = Held()
    stream = begin(logits_processor=[held], max_new_tokens=1)
    with ThreadPoolExecutor(3) as readers:
        found = [readers.submit(lambda: next(stream, None)) for _ in range(3)]
        held.let()
        tokens = [future.result(timeout=60) for future in found]
    assert sum(token is not None for token in tokens) == 1


def test_a_plugin_is_called_in_the_context_of_whoever_began(begin: Any) -> None:
    """Log lines and spans of a request carry its id."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []
    plugin = Plugin(judge=lambda score: seen.append(request.get()))
    request.set("r7")
    list(begin(plugins=[plugin]))
    assert set(seen) == {"r7"}


# One session over several replies


def test_answers_in_one_watch_are_turns_of_one_session(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
) -> None:
    """A chat is one session, and each answer knows its own turn."""
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        answers = []
        for number, text in enumerate(("one", "two")):
            stream = answer(watch, text, max_new_tokens=4, logits_processor=endless(0))
            assert len(list(stream)) == 4
            assert stream.turn is not None
            assert stream.turn.index == number
            answers.append(stream)
        assert not watch.trace.complete
    assert [turn.index for turn in watch.trace.turns] == [0, 1]
    assert watch.trace.complete


def test_a_cancelled_answer_leaves_the_session_open(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
) -> None:
    """People interrupt a reply and go on talking."""
    hooks = hook_count(model)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with answer(watch, "one", max_new_tokens=200, logits_processor=endless()) as first:
            next(first)
        second = answer(watch, "two", max_new_tokens=4, logits_processor=endless(0))
        assert len(list(second)) == 4
        assert hook_count(model) > hooks
    assert [turn.finish_reason for turn in watch.trace.turns] == ["cancelled", "length"]
    assert hook_count(model) == hooks


def test_a_sampled_reply_can_be_repeated_from_its_trace(begin: Any, tmp_path: Path) -> None:
    """The seed asked for is the one on file, and it makes the same words again."""

    def sampled(name: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        path = tmp_path / name
        log = "jsonl-log", {"path": path, "content": "full"}
        list(begin(do_sample=True, seed=seed, plugins=[log]))
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        (turn,) = [line for line in lines if line["type"] == "turn"]
        return lines[0], turn

    session, turn = sampled("one.jsonl", 5)
    assert session["seed"] == turn["settings"]["seed"] == 5
    torch.manual_seed(1)
    _, again = sampled("two.jsonl", session["seed"])
    assert again["token_ids"] == turn["token_ids"]
    assert sampled("three.jsonl", 6)[1]["token_ids"] != turn["token_ids"]
