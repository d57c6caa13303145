"""Watching: each reply token has exactly one score, the right one, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerFast, StaticCache
from transformers.generation.streamers import BaseStreamer

import emowatch
from emowatch import hookimpl
from emowatch.bank import ProbeBank
from emowatch.bank.card import Readout
from emowatch.errors import ProbeMismatchError, TapError, UnsupportedError, UsageError
from emowatch.labels import EKMAN7
from emowatch.records import Alarm, ReplyToken, Session, Steering, TokenScore
from emowatch.streaming import WatchStreamer
from tests.conftest import END_ID
from tests.model.zoo import FAMILIES, WIDTH, hook_count, left_padded, make_model, random_ids

PROMPT, NEW = 7, 6


@pytest.fixture
def model() -> Any:
    """Build the tiny Llama that most tests here speak with."""
    return make_model("llama")


@pytest.fixture
def bank(model: Any) -> ProbeBank:
    """Make a bank for it."""
    return bank_for(model)


def bank_for(model: Any, name: str = "mood", seed: int = 0, layers: Any = "all") -> ProbeBank:
    """Make a random bank of seven labels for all layers."""
    return ProbeBank.random_for(
        model, labels=EKMAN7, head="offset-mlp", name=name, seed=seed, layers=layers
    )


def speak(model: Any, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Any:
    """Generate greedily, `NEW` tokens unless told otherwise."""
    known: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
    whole = torch.ones_like(ids) if mask is None else mask
    return model.generate(ids, attention_mask=whole, **known | options)


@torch.no_grad()
def by_hand(model: Any, bank: ProbeBank, ids: Tensor, place: int, offset: int) -> Tensor:
    """Score one state of ``[time]`` ids from output_hidden_states, at all of the bank's layers."""
    hidden = model(ids[None], output_hidden_states=True).hidden_states
    states = torch.stack([hidden[layer][0, place] for layer in bank.card.layers])
    return bank.heads.scores(states[:, None], offset)[:, 0]


class Plugin:
    """A plugin made of one function for `steer` and one for `judge`."""

    def __init__(
        self,
        steer: Callable[[TokenScore], Steering | None] = lambda score: None,
        judge: Callable[[TokenScore], Alarm | Sequence[Alarm] | None] = lambda score: None,
    ) -> None:
        """Take the functions."""
        self.name = "of-a-test"
        self._steer, self._judge = steer, judge
        self.heard: list[TokenScore] = []
        self.alarms: list[Alarm] = []

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Keep it."""
        self.heard.append(score)

    @hookimpl
    def judge(self, score: TokenScore) -> Alarm | Sequence[Alarm] | None:
        """Ask the function."""
        return self._judge(score)

    @hookimpl
    def alarm_raised(self, alarm: Alarm) -> None:
        """Keep it."""
        self.alarms.append(alarm)

    @hookimpl
    def steer(self, score: TokenScore) -> Steering | None:
        """Ask the function."""
        return self._steer(score)


class Script:
    """A logits processor that lets rows say what a test wants."""

    def __init__(self, *rows: Sequence[int]) -> None:
        """Take the tokens of each row; after them the model speaks freely."""
        self.rows = rows
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave only the wanted token possible; elsewhere only the end is forbidden."""
        result = scores.clone()
        result[:, END_ID] = -torch.inf
        for row, wanted in enumerate(self.rows):
            if self.step < len(wanted):
                result[row] = -torch.inf
                result[row, wanted[self.step]] = 0.0
        self.step += 1
        return result


# Nothing changes


@pytest.mark.parametrize("family", FAMILIES)
def test_a_watched_model_says_what_it_said_before(
    family: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """To the bit, in every family: a monitor that changes the reply measures itself."""
    model, (ids, mask) = make_model(family), left_padded((4, PROMPT))
    hooks = hook_count(model)
    before = speak(model, ids, mask, output_logits=True, return_dict_in_generate=True)
    with emowatch.watch(model, tiny_tokenizer, probes=bank_for(model), layers="all") as watch:
        during = speak(model, ids, mask, output_logits=True, return_dict_in_generate=True)
    after = speak(model, ids, mask)
    assert torch.equal(before.sequences, during.sequences)
    assert all(torch.equal(a, b) for a, b in zip(before.logits, during.logits, strict=True))
    assert torch.equal(before.sequences, after)
    assert hook_count(model) == hooks
    assert len(watch.trace.reply()) == after.shape[1] - PROMPT


def test_sampling_draws_the_same_tokens(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Watching must not use up random numbers."""
    options: dict[str, Any] = {"do_sample": True, "temperature": 1.5, "num_return_sequences": 3}
    torch.manual_seed(11)
    before = speak(model, random_ids(1, PROMPT), **options)
    torch.manual_seed(11)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[Plugin()]):
        during = speak(model, random_ids(1, PROMPT), **options)
    assert torch.equal(before, during)


@pytest.mark.parametrize("place", ["prefill", "later", "plugin", "streamer", "stop"])
def test_no_hooks_stay_after_an_exception(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, place: str
) -> None:
    """Wherever it comes from, and the exception is the one that is seen."""
    hooks, calls = hook_count(model), 0
    block = model.model.layers[1]
    whole = block.forward

    def fail(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= (1 if place == "prefill" else 3):
            raise RuntimeError("lightning")
        return whole(*args, **kwargs)

    class Failing(BaseStreamer):  # type: ignore[misc, unused-ignore]  # untyped before 5
        def put(self, value: Any) -> None:
            fail()

        def end(self) -> None: ...

    options: dict[str, Any] = {}
    plugins: list[Any] = []
    if place in ("prefill", "later"):
        block.forward = fail
    elif place == "plugin":
        whole = lambda *_: None  # noqa: E731
        plugins = [Plugin(judge=fail)]
    elif place == "streamer":
        whole = lambda *_: None  # noqa: E731
        options["streamer"] = Failing()
    else:
        whole = lambda *_, **__: torch.zeros(1, dtype=torch.bool)  # noqa: E731
        options["stopping_criteria"] = [fail]
    watch = emowatch.watch(
        model, tiny_tokenizer, probes=bank, plugins=plugins, on_plugin_error="raise"
    )
    with pytest.raises(Exception, match="lightning"), watch:
        speak(model, random_ids(1, PROMPT), **options)
    assert hook_count(model) == hooks
    assert watch.trace.complete
    assert {turn.finish_reason for turn in watch.trace.turns} <= {"failed"}


def test_a_watch_cannot_be_entered_twice(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Two sets of hooks would score each token twice."""
    hooks = hook_count(model)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with pytest.raises(TapError, match="already on its model"):
            watch.__enter__()
    assert hook_count(model) == hooks


def test_two_watches_at_once_do_not_see_each_other(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A logger around a whole program, and a closer look inside it."""
    other = bank_for(model, seed=1)
    with (
        emowatch.watch(model, tiny_tokenizer, probes=bank) as outer,
        emowatch.watch(model, tiny_tokenizer, probes=other) as inner,
    ):
        speak(model, random_ids(1, PROMPT))
    assert len(outer.trace.tokens) == len(inner.trace.tokens) == PROMPT + NEW - 1
    assert not np.array_equal(outer.trace.tokens.array(), inner.trace.tokens.array())


# The right scores


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_computed_from_output_hidden_states(
    family: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The whole way from hook to number, at every position, layer and offset, done by hand."""
    model = make_model(family)
    bank = bank_for(model)
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, layers="all") as watch:
        text = speak(model, ids, min_new_tokens=NEW)[0]
    assert len(watch.trace.tokens) == PROMPT + NEW - 1
    for score in watch.trace.tokens:
        wanted = by_hand(model, bank, text[: score.position + 1], score.position, score.offset or 0)
        assert score.layer_scores is not None
        assert np.allclose(score.layer_scores, wanted.numpy(), atol=1e-5), score.position
        primary = bank.card.layers.index(bank.card.primary)
        assert np.array_equal(score.scores.array, score.layer_scores[primary])
        assert sum(score.scores.values()) == pytest.approx(1.0, abs=1e-5)


def test_every_reply_token_has_exactly_one_score(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """N tokens, N states, offsets 0 to N-1, the first at the last prompt token."""
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    tokens = watch.trace.tokens
    assert [t.position for t in tokens] == list(range(PROMPT + NEW - 1))
    assert [t.offset for t in tokens] == [None] * (PROMPT - 1) + list(range(NEW))
    assert {t.segment for t in tokens[: PROMPT - 1]} == {"user"}
    assert {t.segment for t in tokens[PROMPT - 1 :]} == {"reply"}
    assert [t.offset for t in watch.trace.reply()] == list(range(NEW))


def test_a_prompt_of_one_token_has_its_score_too(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The last prompt token is then the first."""
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        speak(model, random_ids(1, 1), max_new_tokens=1)
    assert [(t.position, t.offset) for t in watch.trace.tokens] == [(0, 0)]


def test_the_primary_layer_alone_gives_the_same_scores(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Watching fewer layers is cheaper, and no other measurement."""
    traces = []
    for layers in ("primary", "all"):
        with emowatch.watch(model, tiny_tokenizer, probes=bank, layers=layers) as watch:
            speak(model, random_ids(1, PROMPT))
        traces.append(watch.trace.tokens.array())
    assert np.allclose(traces[0], traces[1], atol=1e-6)


def test_a_batch_gives_each_row_the_scores_it_has_alone(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Left padding and neighbours leave no mark, and positions do not count padding."""
    lengths = (3, PROMPT, 5)
    ids, mask = left_padded(lengths)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as together:
        speak(model, ids, mask, min_new_tokens=NEW)
    for row, length in enumerate(lengths):
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as alone:
            speak(model, ids[row : row + 1, PROMPT - length :], min_new_tokens=NEW)
        mine = [t for t in together.trace.tokens if t.sequence == row]
        assert len(mine) == length + NEW - 1
        for found, wanted in zip(mine, alone.trace.tokens, strict=True):
            assert (found.position, found.offset) == (wanted.position, wanted.offset)
            assert np.allclose(found.scores.array, wanted.scores.array, atol=1e-5)
        turn = together.trace.turns[row]
        assert (turn.sequence, turn.prompt_tokens, turn.reply_tokens) == (row, length, NEW)


def test_each_returned_sequence_is_a_row(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """They share a prompt and part ways at the first token."""
    torch.manual_seed(3)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        output = speak(
            model,
            random_ids(1, PROMPT),
            do_sample=True,
            num_return_sequences=3,
            min_new_tokens=NEW,
            temperature=2.0,
        )
    for row in range(3):
        reply = watch.trace.reply(sequence=row)
        assert [t.offset for t in reply] == list(range(NEW))
        for token in reply:
            assert token.offset is not None
            wanted = by_hand(model, bank, output[row, :-1], token.position, token.offset)
            primary = bank.card.layers.index(bank.card.primary)
            assert np.allclose(token.scores.array, wanted[primary].numpy(), atol=1e-5)
    first = [watch.trace.reply(sequence=row)[0].scores.array for row in range(3)]
    assert np.allclose(first[0], first[1], atol=1e-6)


def test_a_row_that_ends_early_is_scored_to_its_end_and_no_further(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """What the model reads afterwards is padding, and padding feels nothing."""
    script = Script([40, 41, END_ID], [50, 51, 52, 53])
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        speak(model, *left_padded((4, PROMPT)), logits_processor=[script])
    assert [t.offset for t in watch.trace.reply(sequence=0)] == [0, 1, 2]
    assert [t.offset for t in watch.trace.reply(sequence=1)] == list(range(NEW))
    first, second = watch.trace.turns
    assert (first.finish_reason, first.reply_tokens) == ("stop", 3)
    assert first.token_ids == (40, 41, END_ID)
    assert (second.finish_reason, second.reply_tokens) == ("length", NEW)
    assert second.token_ids[:4] == (50, 51, 52, 53)


def test_two_turns_in_one_watch_are_told_apart(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Offsets begin again, and each turn has the scores it would have had alone."""
    prompts = [random_ids(1, PROMPT, seed) for seed in (1, 2)]
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        for ids in prompts:
            speak(model, ids, min_new_tokens=NEW)
    assert [turn.index for turn in watch.trace.turns] == [0, 1]
    for number, ids in enumerate(prompts):
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as alone:
            speak(model, ids, min_new_tokens=NEW)
        mine = watch.trace.reply(turn=number)
        assert [t.offset for t in mine] == list(range(NEW))
        for found, wanted in zip(mine, alone.trace.reply(), strict=True):
            assert np.array_equal(found.scores.array, wanted.scores.array)
    assert watch.trace.reply()[0].turn == 1


def test_a_turn_that_goes_on_from_a_cache_keeps_counting_positions(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Chat programs keep the cache between turns, and then only the new part is read."""
    cache = DynamicCache(config=model.config)
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        first = speak(model, ids, past_key_values=cache, min_new_tokens=NEW)
        longer = torch.cat([first, random_ids(1, 3, seed=5)], dim=1)
        second = speak(model, longer, past_key_values=cache, min_new_tokens=NEW)[0]
    mine = [t for t in watch.trace.tokens if t.turn == 1]
    assert [t.position for t in mine] == list(range(PROMPT + NEW - 1, PROMPT + NEW + 3 + NEW - 1))
    assert [t.offset for t in mine if t.offset is not None] == list(range(NEW))
    for token in mine:
        wanted = by_hand(model, bank, second[:-1], token.position, token.offset or 0)
        primary = bank.card.layers.index(bank.card.primary)
        assert np.allclose(token.scores.array, wanted[primary].numpy(), atol=1e-5)
    assert watch.trace.turns[1].prompt_tokens == PROMPT + NEW + 3
    assert watch.trace.turns[1].finish_reason == "length"


def test_several_banks_score_the_same_states(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each at its own layers, in one forward."""
    banks = [bank_for(model, "one", 1), bank_for(model, "two", 2, layers="1,3")]
    with emowatch.watch(model, tiny_tokenizer, probes=banks) as both:
        speak(model, random_ids(1, PROMPT))
    for bank in banks:
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as alone:
            speak(model, random_ids(1, PROMPT))
        table = both.trace.by_bank[bank.card.name]
        assert np.array_equal(table.array(), alone.trace.tokens.array())
    assert set(both.trace.turns[0].mean_scores) == {"one", "two"}


def test_half_precision_states_are_scored_in_float32(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """In bfloat16 a sum of probabilities may miss one by a percent."""
    model = make_model("llama").to(torch.bfloat16)
    bank = bank_for(model)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        text = speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)[0]
    primary = bank.card.layers.index(bank.card.primary)
    for token in watch.trace.reply():
        assert token.offset is not None
        wanted = by_hand(model, bank, text[:-1], token.position, token.offset)[primary]
        assert np.allclose(token.scores.array, wanted.numpy(), atol=2e-2)
        assert token.scores.array.sum() == pytest.approx(1.0, abs=1e-5)


def test_autocast_does_not_reach_the_heads(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """It is meant for the model; heads were calibrated in float32."""
    prompt = random_ids(1, PROMPT)
    seen: list[Tensor] = []
    primary = bank.card.primary
    model.model.layers[primary].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
            speak(model, prompt, max_new_tokens=1)
    wanted = bank.heads_at((primary,)).scores(seen[0], 0)[0]
    assert np.allclose(watch.trace.tokens.array(), wanted.numpy(), atol=1e-6)


def test_means_are_over_the_reply_alone(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The user's words have scores too, and they are not the reply's."""
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        speak(model, *left_padded((4, PROMPT)), min_new_tokens=NEW)
    for row in (0, 1):
        scores = [t.scores.array for t in watch.trace.reply(sequence=row)]
        mean = watch.trace.turns[row].mean_scores["mood"].array
        assert np.allclose(mean, np.mean(scores, axis=0), atol=1e-6)


# Segments


def test_the_parts_of_a_dialogue_are_told_apart(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Left padding moves columns, not segments."""
    talk = [{"role": "system", "content": "ab"}, {"role": "user", "content": "cde"}]
    prompts = [
        tiny_tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=True)
        for part in (talk, talk[1:])
    ]
    encoded = tiny_tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        speak(model, encoded["input_ids"], encoded["attention_mask"], max_new_tokens=1)
    found = [[t.segment for t in watch.trace.tokens if t.sequence == row] for row in (0, 1)]
    user = ["user"] * 3 + ["special", "reply"]
    assert found[0] == ["special"] * 2 + ["system"] * 2 + ["special"] * 2 + user
    assert found[1] == ["special"] * 2 + user


def test_thinking_is_told_from_the_reply(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Also where the prompt has opened it already."""
    tiny_tokenizer.add_tokens(["<think>", "</think>"])
    model.resize_token_embeddings(len(tiny_tokenizer), mean_resizing=False)
    opening, closing = (tiny_tokenizer.get_vocab()[t] for t in ("<think>", "</think>"))
    bank = bank_for(model)
    ids = tiny_tokenizer("<|bos|><|user|>hi<|end|><|assistant|>", return_tensors="pt")["input_ids"]
    segments = []
    for prompt, script in (
        (ids, [opening, 40, closing, 41]),
        (torch.cat([ids, torch.tensor([[opening]])], dim=1), [40, closing, 41, 42]),
    ):
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
            speak(model, prompt, max_new_tokens=4, logits_processor=[Script(script)])
        segments.append([t.segment for t in watch.trace.reply()])
    assert segments[0] == ["reply", "thinking", "thinking", "reply"]
    assert segments[1] == ["thinking", "thinking", "reply", "reply"]


# Turns


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_new_tokens": NEW}, "length"),
        ({"max_new_tokens": None, "max_length": PROMPT + NEW}, "length"),
        ({"max_new_tokens": NEW, "stop": 3}, "stop"),
        ({"max_new_tokens": 3, "stop": 3}, "length"),
        ({"max_new_tokens": 50, "end": 4}, "stop"),
    ],
)
def test_why_a_reply_ended_is_told(
    model: Any,
    bank: ProbeBank,
    tiny_tokenizer: PreTrainedTokenizerFast,
    options: dict[str, Any],
    reason: str,
) -> None:
    """By its length, its end token, or a criterion of the caller's."""
    stop, end = options.pop("stop", None), options.pop("end", None)
    script = Script([40] * 3 + [END_ID] if end else [40] * 50)
    if stop:
        options["stopping_criteria"] = [
            lambda ids, _, **__: torch.tensor([ids.shape[1] >= PROMPT + stop])
        ]
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        output = speak(model, random_ids(1, PROMPT), logits_processor=[script], **options)
    (turn,) = watch.trace.turns
    assert turn.finish_reason == reason
    assert turn.reply_tokens == output.shape[1] - PROMPT == len(watch.trace.reply())
    assert turn.token_ids == tuple(output[0, PROMPT:-1].tolist())


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


# Refused


def assisted(model: Any) -> dict[str, Any]:
    """Ask for assisted decoding."""
    return {"assistant_model": make_model("llama", seed=1)}


REFUSED: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "beams": (lambda model: {"num_beams": 2}, "Could not watch beam search"),
    "assisted": (assisted, "Could not watch assisted decoding"),
    "look-up": (lambda model: {"prompt_lookup_num_tokens": 2}, "assisted decoding or prompt look"),
    "no cache": (lambda model: {"use_cache": False}, "use_cache=False"),
    "chunks": (lambda model: {"prefill_chunk_size": 3}, "prefill_chunk_size"),
    "static": (lambda model: {"cache_implementation": "static"}, "='static'|static caches prepare"),
    "static cache": (
        lambda model: {"past_key_values": StaticCache(config=model.config, max_cache_len=32)},
        "with a StaticCache: transformers compiles it|static caches prepare",
    ),
}


@pytest.mark.parametrize("mode", REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning")  # transformers' own, on rare modes
def test_a_mode_that_cannot_be_followed_is_refused_in_words(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, mode: str
) -> None:
    """A score for the wrong token is worse than none."""
    options, sentence = REFUSED[mode]
    hooks = hook_count(model)
    asked = options(model)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with pytest.raises(UnsupportedError, match=sentence):
            speak(model, random_ids(1, PROMPT), **asked)
    assert len(watch.trace.tokens) == 0
    assert hook_count(model) == hooks


def test_a_forward_outside_generate_is_refused(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Nobody can say where its prompt ends."""
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with pytest.raises(UnsupportedError, match=r"does not come from model\.generate"):
            model(random_ids(1, PROMPT))
        speak(model, random_ids(1, PROMPT))
    assert len(watch.trace.turns) == 1


def test_a_batch_that_is_padded_on_the_right_is_refused(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The reply would follow padding, and its states with it."""
    ids, mask = left_padded((4, PROMPT))
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with pytest.raises(UnsupportedError, match=r'tokenizer\.padding_side = "left"'):
            speak(model, ids.flip(1), mask.flip(1))
    assert not watch.trace.turns


def test_a_bank_of_another_model_is_refused_before_any_hook(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Nothing must be left behind by what never began."""
    hooks = hook_count(model)
    with pytest.raises(ProbeMismatchError, match="not for 'mine'"):
        emowatch.watch(
            model, tiny_tokenizer, probes=bank_for(make_model("gpt2")), model_name="mine"
        )
    assert hook_count(model) == hooks


@pytest.mark.parametrize("strict", [True, False])
def test_a_bank_of_other_weights_is_named_on_stderr_or_refused(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, strict: bool, capfd: Any
) -> None:
    """It may fit a fine-tuned model, and that is for the user to decide."""
    other = bank_for(make_model("llama", seed=1))
    if strict:
        with pytest.raises(ProbeMismatchError, match="weights differ"):
            emowatch.watch(model, tiny_tokenizer, probes=other, strict=True)
    else:
        emowatch.watch(model, tiny_tokenizer, probes=other)
        said = capfd.readouterr()
        assert "mood was trained with other weights than this model's" in said.err
        assert not said.out


def test_banks_must_be_named_and_told_apart(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Scores go by the name of their bank."""
    nothing: tuple[Any, ...] = ([], (), None)
    for probes in nothing:
        with pytest.raises(UsageError, match="No bank was named"):
            emowatch.watch(model, tiny_tokenizer, probes=probes)
    with pytest.raises(UsageError, match="Two banks go by the same name: mood, mood"):
        emowatch.watch(model, tiny_tokenizer, probes=[bank, bank])


# Plugins


def towards(strength: float, layer: int = 1) -> Callable[[TokenScore], Steering]:
    """Always ask for the same direction."""
    return lambda score: Steering(direction="joy", layer=layer, strength=strength)


def test_steering_with_zero_strength_changes_nothing(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The first law, through the whole way from plugin to residual."""
    ids = random_ids(2, PROMPT)
    plain = speak(model, ids, min_new_tokens=NEW)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as unsteered:
        speak(model, ids, min_new_tokens=NEW)
    with emowatch.watch(
        model, tiny_tokenizer, probes=bank, plugins=[Plugin(steer=towards(0.0))]
    ) as watch:
        steered = speak(model, ids, min_new_tokens=NEW)
    assert torch.equal(plain, steered)
    assert np.array_equal(unsteered.trace.tokens.array(), watch.trace.tokens.array())
    assert unsteered.trace.steerings == watch.trace.steerings == []


def test_steering_begins_with_the_forward_after_the_wish(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Prompt and first token are as without; then the states differ."""
    ids = random_ids(1, PROMPT)
    scores = []
    for strength in (0.0, 8.0):
        plugin = Plugin(steer=towards(strength))
        with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
            speak(model, ids, min_new_tokens=NEW)
        scores.append(watch.trace.tokens.array())
    assert np.array_equal(scores[0][:PROMPT], scores[1][:PROMPT])
    assert not np.allclose(scores[0][PROMPT], scores[1][PROMPT])


def lines_of(watch: Any) -> list[tuple[int, int, int, float]]:
    """List turn, row, offset and strength of each change."""
    return [(c.turn, c.sequence, c.offset, c.strength) for c in watch.trace.steerings]


def test_steering_is_recorded_where_it_begins_changes_and_ends(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """One that stays the same takes no line per token, and what one turn began ends with it."""
    strengths = [0.0, 2.0, 2.0, 5.0, 5.0, 5.0]
    plugin = Plugin(
        steer=lambda score: (
            towards(strengths[score.offset or 0])(score) if score.sequence == 1 else None
        )
    )
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(2, PROMPT), min_new_tokens=NEW)
        speak(model, random_ids(2, PROMPT), min_new_tokens=NEW)
    assert lines_of(watch) == [
        (turn, 1, *line) for turn in (0, 1) for line in ((1, 2.0), (3, 5.0), (NEW - 1, 0.0))
    ]
    first = watch.trace.steerings[0]
    assert (first.plugin, first.direction, first.layer) == ("of-a-test", "joy", 1)
    assert first.applied == 2.0 and first.total == pytest.approx(2.0)


def test_steering_that_is_no_longer_asked_for_ends_in_the_record(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Silence is not the same as asking again."""
    plugin = Plugin(steer=lambda score: towards(4.0)(score) if score.offset in (1, 2) else None)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert lines_of(watch) == [(0, 0, 1, 4.0), (0, 0, 3, 0.0)]
    assert watch.trace.steerings[1].total == 0.0


def test_steering_of_a_row_ends_with_the_row(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Its last state is the last that anything can be decided at."""
    script = Script([40, END_ID], [40] * NEW)
    plugin = Plugin(steer=towards(4.0))
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(2, PROMPT), logits_processor=[script])
    assert lines_of(watch) == [
        (0, 0, 0, 4.0),
        (0, 1, 0, 4.0),
        (0, 0, 1, 0.0),
        (0, 1, NEW - 1, 0.0),
    ]


def test_steering_by_an_array_is_recorded_by_its_hash(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The same array has the same name, and another has another."""
    arrays = np.random.default_rng(0).normal(size=(2, WIDTH)).astype(np.float32)
    plugin = Plugin(
        steer=lambda score: Steering(
            direction=arrays[0 if (score.offset or 0) < 3 else 1], layer=0, strength=1.0
        )
    )
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    names = [change.direction for change in watch.trace.steerings]
    assert lines_of(watch) == [(0, 0, 0, 1.0), (0, 0, 3, 0.0), (0, 0, 3, 1.0), (0, 0, 5, 0.0)]
    assert names[0] == names[1] != names[2] == names[3]
    assert all(name.startswith("sha256:") and len(name) == 19 for name in names)


def test_steering_of_one_row_leaves_the_others_alone(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A batch is several people."""
    ids = random_ids(2, PROMPT)
    plugin = Plugin(steer=lambda score: towards(8.0)(score) if score.sequence == 1 else None)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as plain:
        speak(model, ids, min_new_tokens=NEW)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, ids, min_new_tokens=NEW)
    for row, same in ((0, True), (1, False)):
        found = [t.scores.array for t in watch.trace.reply(sequence=row)]
        wanted = [t.scores.array for t in plain.trace.reply(sequence=row)]
        assert np.allclose(found, wanted, atol=1e-6) == same


def test_a_turn_is_not_steered_by_the_one_before(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The last wish of a turn must not colour the next prompt, which may be of another size."""
    plugin = Plugin(steer=lambda score: towards(8.0)(score) if score.turn == 0 else None)
    later = random_ids(3, PROMPT, seed=2)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(2, PROMPT, seed=1), min_new_tokens=NEW)
        speak(model, later, min_new_tokens=NEW)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as plain:
        speak(model, later, min_new_tokens=NEW)
    found = [t.scores.array for t in watch.trace.tokens if t.turn == 1]
    assert np.array_equal(found, plain.trace.tokens.array())


def test_after_a_watch_the_model_is_not_steered(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Whatever the last wish was."""
    ids = random_ids(1, PROMPT)
    before = speak(model, ids)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[Plugin(steer=towards(16.0))]):
        speak(model, ids)
    assert torch.equal(speak(model, ids), before)


def test_a_strength_beyond_the_cap_is_capped(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The core has the last word, however many plugins push the same way."""
    scores = []
    for strength in (16.0, 1e6):
        plugin = Plugin(steer=towards(strength))
        with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
            speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
        scores.append(watch.trace.tokens.array())
    assert np.allclose(scores[0], scores[1], atol=1e-6)


def test_alarms_are_recorded_and_told(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """One, several or none for each score, in order."""

    def judge(score: TokenScore) -> Sequence[Alarm]:
        if score.offset is None or score.offset % 2:
            return []
        alarm = Alarm(
            rule="even tokens",
            label=score.dominant,
            level="watch",
            score=score.scores[score.dominant],
            threshold=0.0,
            bank=score.bank,
            turn=score.turn,
            sequence=score.sequence,
            offset=score.offset,
        )
        return [alarm, alarm]

    plugin = Plugin(judge=judge)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert [alarm.offset for alarm in watch.trace.alarms] == [0, 0, 2, 2, 4, 4]
    assert plugin.alarms == watch.trace.alarms


def test_what_plugins_hear_is_what_the_trace_keeps(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """And it is read-only, since there may be several of them."""
    plugin = Plugin()
    with emowatch.watch(
        model, tiny_tokenizer, probes=bank, plugins=[plugin], layers="all"
    ) as watch:
        speak(model, *left_padded((4, PROMPT)))
    assert len(plugin.heard) == len(watch.trace.tokens)
    for heard, kept in zip(plugin.heard, watch.trace.tokens, strict=True):
        assert (heard.sequence, heard.position, heard.offset) == (
            kept.sequence,
            kept.position,
            kept.offset,
        )
        assert np.array_equal(heard.scores.array, kept.scores.array)
        assert heard.layer_scores is not None
        for values in (heard.scores.array, heard.layer_scores):
            with pytest.raises(ValueError, match="read-only"):
                values[0] = 0


def test_a_session_says_what_is_watched(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Plugins and traces know the model by this alone."""
    with emowatch.watch(
        model, tiny_tokenizer, probes=bank, model_name="mine", certificate={"passed": True}
    ) as watch:
        pass
    session: Session = watch.session
    assert (session.model, session.n_layers, session.d_model) == ("mine", 3, WIDTH)
    assert session.banks == (bank.info,)
    assert session.certificate == {"passed": True}
    assert watch.trace.complete
    assert not watch.trace.turns


def test_two_generations_at_once_on_one_watch_are_refused(model: Any, bank: ProbeBank) -> None:
    """Their forwards would be taken for each other's, and one user's words for another's."""
    ids, other = random_ids(1, PROMPT), random_ids(1, PROMPT - 2)

    class Interrupting(BaseStreamer):
        """Starts another generation in the midst of the first."""

        calls = 0

        def put(self, value: Tensor) -> None:
            self.calls += 1
            if self.calls == 3:
                speak(model, other)

        def end(self) -> None:
            pass

    before = hook_count(model)
    with (
        pytest.raises(UnsupportedError, match="two generations at once"),
        emowatch.watch(model, None, probes=bank),
    ):
        speak(model, ids, streamer=Interrupting())
    assert hook_count(model) == before


def test_a_wish_that_cannot_be_steered_switches_its_plugin_off(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip in a steering plugin must not end the user's reply."""

    class Slip:
        """Wants a layer that there is not."""

        @hookimpl
        def steer(self, score: TokenScore) -> Steering:
            return Steering(direction="joy", layer=99, strength=1.0)

    ids = random_ids(1, PROMPT)
    expected = speak(model, ids)
    with emowatch.watch(model, None, probes=bank, plugins=[Slip()]) as w:
        assert torch.equal(speak(model, ids), expected)
    assert w.plugins.errors["Slip"] == 1
    assert "layer 99" in capsys.readouterr().err


def test_a_generation_that_failed_in_another_thread_is_over(model: Any, bank: ProbeBank) -> None:
    """Its thread lives on, as a server's worker does, and the next one is scored."""
    ids = random_ids(1, PROMPT)

    class Broken(BaseStreamer):
        """Breaks a block once the prompt has been read."""

        def put(self, value: Tensor) -> None:
            def fail(*_: Any) -> None:
                handle.remove()
                raise RuntimeError("out of memory")

            handle = model.model.layers[1].register_forward_pre_hook(fail)

        def end(self) -> None:
            pass

    with ThreadPoolExecutor(1) as thread, emowatch.watch(model, None, probes=bank) as watch:
        with pytest.raises(RuntimeError, match="out of memory"):
            thread.submit(speak, model, ids, streamer=Broken()).result(60)
        speak(model, ids)
    assert len(watch.trace.reply()) == NEW


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("/home/ann/secret/tiny", "tiny"),
        ("~/secret/tiny", "tiny"),
        ("../secret/tiny/", "tiny"),
        ("owner/tiny", "owner/tiny"),
        ("", "model"),
    ],
)
def test_a_session_names_a_folder_by_its_last_part(
    told: str, name: str, model: Any, bank: ProbeBank, tmp_path: Path
) -> None:
    """The rest of a path says who the user is, also in a trace without text."""
    model.config.name_or_path = told
    path = tmp_path / "t.jsonl"
    with emowatch.watch(model, None, probes=bank, plugins=[("jsonl-log", {"path": path})]):
        pass
    assert json.loads(path.read_text().splitlines()[0])["model"] == name


def test_a_folder_that_is_there_is_named_by_its_last_part(
    model: Any, bank: ProbeBank, tmp_path: Path
) -> None:
    """As the command line names it."""
    folder = tmp_path / "a tiny model"
    folder.mkdir()
    model.config.name_or_path = str(folder)
    assert emowatch.watch(model, None, probes=bank).session.model == "a tiny model"


# Seeds


def test_the_seed_that_is_told_stands_in_the_session(model: Any, bank: ProbeBank) -> None:
    """Whoever seeds torch later knows the number; without one torch's own is taken."""
    torch.manual_seed(11)
    assert emowatch.watch(model, None, probes=bank, seed=5).session.seed == 5
    assert emowatch.watch(model, None, probes=bank).session.seed == 11
    assert torch.initial_seed() == 11


def test_the_seed_of_a_turn_is_that_turns_alone(model: Any, bank: ProbeBank) -> None:
    """A number that belongs to another reply would be worse than none."""
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, None, probes=bank) as watch:
        watch.seed_turn(3)
        speak(model, ids)
        speak(model, ids)
        watch.end_turn()
    assert [turn.settings.get("seed") for turn in watch.trace.turns] == [3, None]


# Outside of what a bank was trained on


@pytest.mark.parametrize(
    ("readout", "offsets", "said"),
    [
        ("last_prompt_token", (0, 0), "at the last prompt token only; its scores at later tokens"),
        ("positions", (0, 0), "at chosen tokens of prompts only; its scores at other tokens"),
        ("mean", (0, 0), "on means over prompts; its scores of single tokens"),
        ("reply", (0, 95), ""),
        ("reply", (0, 0), ""),
    ],
)
def test_a_bank_that_is_read_where_it_was_not_trained_is_told_of_once(
    readout: Readout, offsets: tuple[int, int], said: str, model: Any, bank: ProbeBank, capsys: Any
) -> None:
    """Its scores of replies look like any others; a bank of replies makes no noise."""
    card = replace(bank.card, readout=readout, offsets=offsets)
    with emowatch.watch(model, None, probes=ProbeBank(card, bank.tensors)) as watch:
        speak(model, random_ids(1, PROMPT))
    (info,) = watch.session.banks
    assert (info.readout, info.offsets) == (readout, offsets)
    lines = capsys.readouterr().err.splitlines()
    wanted = [f"emowatch: the bank mood was trained {said} are extrapolated."] if said else []
    assert lines == wanted
