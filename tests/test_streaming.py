"""Streaming: tokens come as they are made, and the model stops when nobody listens any more."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import ContextError, UsageError
from emowatch.labels import EKMAN7
from emowatch.records import ReplyToken
from emowatch.streaming import Stream, answer, encode_prompt
from emowatch.wording import ReplyText
from tests.conftest import END_ID
from tests.model.zoo import hook_count, make_model

NEW = 12


@pytest.fixture
def model() -> Any:
    """Build the tiny Llama."""
    return make_model("llama")


@pytest.fixture
def bank(model: Any) -> ProbeBank:
    """Make a bank for it."""
    return ProbeBank.random_for(model, labels=EKMAN7, head="offset-mlp", name="mood")


@pytest.fixture
def begin(model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank) -> Any:
    """Give a function that starts a stream."""

    def start(messages: Any = "hello", **options: Any) -> Stream:
        known: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
        return emowatch.stream(model, tiny_tokenizer, messages, probes=bank, **known | options)

    return start


class Say:
    """A logits processor that makes the model say certain tokens, then end."""

    def __init__(self, tokens: Sequence[int], pause_s: float = 0.0, for_ever: bool = False) -> None:
        """Take the tokens; `for_ever` repeats the last one instead of ending."""
        self.tokens, self.pause_s, self.for_ever = list(tokens), pause_s, for_ever
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave only the wanted token possible."""
        time.sleep(self.pause_s)
        last = self.tokens[-1] if self.for_ever else END_ID
        token = self.tokens[self.step] if self.step < len(self.tokens) else last
        self.step += 1
        result = torch.full_like(scores, -torch.inf)
        result[:, token] = 0.0
        return result


def endless(pause_s: float = 0.002) -> list[Any]:
    """Let the model speak until it is stopped."""
    return [Say([40], pause_s, for_ever=True)]


def wait_for(condition: Any, seconds: float = 10.0) -> bool:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


def streams() -> int:
    """Count the worker threads that are alive."""
    return sum(thread.name == "emowatch-stream" for thread in threading.enumerate())


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
        assert np.array_equal(token.scores.array, score.scores.array)
        assert token.dominant == score.dominant
    assert np.array_equal(stream.trace.tokens.array(), watch.trace.tokens.array())


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        "né à Köln",
        "日本語",
        "🙂🙃👩‍👩‍👧",
        " leading",
        "two\n\nlines ",
        "a�b",
        "ﷺ",
    ],
)
def test_pieces_join_to_the_reply(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    """Here every token is a byte, so that most characters span several."""
    said = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert isinstance(said, list)
    stream = begin(logits_processor=[Say(said)], max_new_tokens=80)
    tokens = list(stream)
    assert "".join(token.text for token in tokens) == text
    assert stream.turn is not None
    assert stream.turn.text == text
    assert stream.turn.finish_reason == "stop"
    assert [token.token_id for token in tokens] == [*said, END_ID]


def test_a_character_that_is_never_completed_is_in_the_text_of_the_turn(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """When its token comes nobody knows yet that it is the last; a turn does."""
    said = tiny_tokenizer("ab🙂", add_special_tokens=False)["input_ids"]
    assert isinstance(said, list)
    stream = begin(logits_processor=[Say(said[:-1])])
    assert "".join(token.text for token in stream) == "ab"
    assert stream.turn.text == "ab�"


def test_a_character_comes_with_the_token_that_completes_it(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Half a character would be shown as a replacement sign, and then be replaced."""
    said = tiny_tokenizer("aé🙂b", add_special_tokens=False)["input_ids"]
    tokens = list(begin(logits_processor=[Say(said)]))
    assert [token.text for token in tokens] == ["a", "", "é", "", "", "", "🙂", "b", ""]


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_broken_bytes_join_to_what_the_tokenizer_makes_of_them(
    tiny_tokenizer: PreTrainedTokenizerFast, seed: int
) -> None:
    """A random or damaged model speaks such; text must not be lost for it."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = torch.tensor([*range(6, 262), *range(200, 262)])
    places = torch.randint(0, len(vocabulary), (400,), generator=generator)
    ids = vocabulary[places].tolist()
    reply = ReplyText(tiny_tokenizer)
    pieces = []
    for number, token in enumerate(ids, 1):
        pieces.append(reply.add(token))
        if number % 40 == 0:
            assert reply.text == tiny_tokenizer.decode(ids[:number])
    assert str(tiny_tokenizer.decode(ids)).startswith("".join(pieces))
    assert reply.pieces == pieces


def test_bytes_that_make_no_character_are_not_held_for_ever(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """A model that is stuck on one byte must show that it is."""
    reply = ReplyText(tiny_tokenizer)
    stuck = next(i for i in range(6, 262) if tiny_tokenizer.decode([i]) == "�")
    pieces = [reply.add(stuck) for _ in range(500)]
    assert len("".join(pieces)) > 400
    assert len(reply.text) == 500


def test_text_of_a_long_reply_costs_no_more_at_its_end(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Only what is not settled yet is decoded again."""

    class Counting:
        longest = 0

        def decode(self, ids: list[int], **options: Any) -> str:
            self.longest = max(self.longest, len(ids))
            return str(tiny_tokenizer.decode(ids, **options))

    counting = Counting()
    reply = ReplyText(counting)
    ids = tiny_tokenizer("so on 🙂 " * 200)["input_ids"]
    for token in ids:
        reply.add(token)
    assert reply.text == "so on 🙂 " * 200
    assert counting.longest <= 8


def test_without_a_tokenizer_there_are_ids_and_no_text() -> None:
    """A trace may be told to keep none."""
    reply = ReplyText(None)
    assert reply.add(7) == ""
    assert (reply.text, reply.ids, reply.pieces) == ("", [7], [""])


def test_a_dialogue_is_written_with_the_template(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Scores of system and user tokens come with it."""
    talk = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    with begin(talk) as stream:
        list(stream)
    segments = [token.segment for token in stream.trace.tokens]
    assert segments.count("system") == 7
    assert segments.count("user") == 5


def test_a_model_without_a_template_goes_on_from_the_text(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A base model."""
    tiny_tokenizer.chat_template = None
    with begin("once upon") as stream:
        list(stream)
    assert stream.turn.prompt_tokens == 9


def test_options_are_handed_on_to_generate(begin: Any) -> None:
    """Also the caller's own streamer and criteria, which are asked beside ours."""

    class Own:
        def __init__(self) -> None:
            self.put_ids: list[int] = []
            self.ended = False

        def put(self, value: Tensor) -> None:
            self.put_ids += value.flatten().tolist()

        def end(self) -> None:
            self.ended = True

    own = Own()
    asked: list[int] = []

    def stop(input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        asked.append(input_ids.shape[1])
        return torch.tensor([len(asked) == 3])

    stream = begin(logits_processor=endless(0), streamer=own, stopping_criteria=[stop])
    assert [token.token_id for token in stream] == [40, 40, 40]
    assert own.put_ids[-3:] == [40, 40, 40]
    assert own.ended
    assert stream.turn.finish_reason == "stop"


def test_a_seed_makes_sampling_repeatable(begin: Any) -> None:
    """For whoever wants to see the same chat again."""
    said = [
        [token.token_id for token in begin(do_sample=True, temperature=2.0, seed=seed)]
        for seed in (4, 4, 5)
    ]
    assert said[0] == said[1] != said[2]


def test_the_reply_is_cut_to_what_the_context_leaves(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
) -> None:
    """Past its context a model speaks nonsense, or crashes."""
    context = model.config.max_position_embeddings
    text = "x" * (context - 9)
    stream = emowatch.stream(
        model, tiny_tokenizer, text, probes=bank, max_new_tokens=500, logits_processor=endless(0)
    )
    tokens = list(stream)
    assert stream.turn is not None
    assert stream.turn.prompt_tokens + len(tokens) == context
    assert stream.turn.finish_reason == "length"


# What is refused


@pytest.mark.parametrize(
    "messages",
    ["", "  \n", [{"role": "user", "content": ""}], [{"role": "system", "content": " "}], [{}]],
)
def test_an_empty_message_is_refused_before_anything_starts(
    begin: Any, model: Any, messages: Any
) -> None:
    """There is nothing to answer, and a model would answer all the same."""
    hooks, threads = hook_count(model), streams()
    with pytest.raises(UsageError, match="message is empty"):
        begin(messages)
    assert (hook_count(model), streams()) == (hooks, threads)


@pytest.mark.parametrize("length", [256, 1000])
def test_a_prompt_longer_than_the_context_is_refused(begin: Any, length: int) -> None:
    """With both numbers, and what to do."""
    with pytest.raises(
        ContextError, match=r"The prompt has \d+ tokens, .* context is 256: nothing"
    ):
        begin("x" * length)


def test_a_dialogue_that_the_template_refuses_is_a_usage_error(begin: Any) -> None:
    """Each template has roles of its own."""
    with pytest.raises(UsageError, match="chat template refused the dialogue: unknown role: bard"):
        begin([{"role": "bard", "content": "hm"}])


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


def test_fifty_cancelled_streams_leave_no_thread_and_no_hook(begin: Any, model: Any) -> None:
    """A server does this all day."""
    hooks, threads = hook_count(model), threading.active_count()
    for number in range(50):
        stream = begin(logits_processor=endless(0.001), max_new_tokens=100)
        if number % 2:
            next(stream)
        stream.close()
        assert stream.turn is not None
        assert stream.turn.finish_reason == "cancelled"
    assert threading.active_count() == threads
    assert not streams()
    assert hook_count(model) == hooks


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
