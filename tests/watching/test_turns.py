"""Turns: each reply token has exactly one score, at its place, in its part, until its row ends."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.decoding import current_decoding
from emowatch.records import Turn
from emowatch.watching import session
from tests.conftest import END_ID
from tests.model.zoo import left_padded, random_ids
from tests.watching.modes import compiled
from tests.watching.speaking import NEW, PROMPT, Script, bank_for, by_hand, speak

# Places


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


# Ends


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
    assert turn.token_ids == tuple(output[0, PROMPT:].tolist())


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


# The end


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "to an end": {"eos_token_id": list(range(2, 200)), "max_new_tokens": 40},
    "look-up": {"prompt_lookup_num_tokens": 3},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "compiled": compiled(),
}


@pytest.mark.parametrize("mode", MODES)
def test_whoever_asks_for_the_trace_after_generate_finds_the_turn_in_it(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, mode: str
) -> None:
    """As everybody does who watches for longer than one reply."""
    plugin = Ends()
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        said = speak(model, random_ids(1, PROMPT), **MODES[mode])
        assert plugin.heard == []
        found = watch.trace.turns
        assert [turn.token_ids for turn in found] == [
            tuple(row) for row in said[:, PROMPT:].tolist()
        ]
        assert plugin.heard == found
        speak(model, random_ids(1, PROMPT), **MODES[mode])
        assert len(watch.trace.turns) == 2 * len(said)
    assert len(watch.trace.turns) == len(plugin.heard) == 2 * len(said)


@pytest.mark.parametrize("mode", MODES)
def test_whoever_asks_for_the_trace_while_it_is_made_ends_nothing(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, mode: str
) -> None:
    """From inside the loop, or from another thread when it is over."""
    counts = []

    class Streamer:
        """Is told of the prompt, of each token, and of the end."""

        def put(self, value: torch.Tensor) -> None:
            """Ask at a token."""
            counts.append((len(watch.trace.tokens), len(watch.trace.turns)))

        def end(self) -> None:
            """Ask when the loop is over and generate is not."""
            counts.append((len(watch.trace.tokens), len(watch.trace.turns)))

    def ask(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        counts.append((len(watch.trace.tokens), len(watch.trace.turns)))
        return torch.zeros(len(ids), dtype=torch.bool)

    def ask_elsewhere() -> None:
        counts.append((0, len(watch.trace.turns)))

    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        streamer: dict[str, Any] = {} if mode == "beams" else {"streamer": Streamer()}
        speak(model, random_ids(1, PROMPT), stopping_criteria=[ask], **MODES[mode], **streamer)
        thread = threading.Thread(target=ask_elsewhere)
        thread.start()
        thread.join()
        assert {turns for _, turns in counts} == {0}
        assert len(counts) >= 2
        assert watch.trace.turns


@pytest.mark.parametrize("new", [1, 2, 16, 17, 18, 40])
def test_every_score_is_in_the_trace_when_generate_returns(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, new: int
) -> None:
    """Also for whoever took the trace before, though steps that nobody hears of wait."""
    ids, mask = left_padded((3, PROMPT))
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        trace = watch.trace
        speak(model, ids, mask, max_new_tokens=new, eos_token_id=None)
        offsets = [t.offset for t in trace.tokens if t.offset is not None]
        assert offsets == [offset for offset in range(new) for _ in range(2)]
        assert not trace.turns


def test_a_failure_that_is_forgotten_during_the_next_reply_takes_nothing_of_it(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Its traceback keeps its loop alive until then."""
    kept: list[BaseException] = []

    def forget(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] == PROMPT + 4:
            kept.clear()
            gc.collect()
        return scores

    def strike(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] == PROMPT + 3:
            raise RuntimeError("lightning")
        return scores

    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        try:
            speak(model, random_ids(1, PROMPT), logits_processor=[strike], eos_token_id=None)
        except RuntimeError as error:
            kept.append(error)
        speak(model, random_ids(1, PROMPT), logits_processor=[forget], eos_token_id=None)
        assert not kept
    offsets = [t.offset for t in watch.trace.tokens if t.offset is not None]
    assert offsets == [*range(4), *range(NEW)]
    assert [turn.finish_reason for turn in watch.trace.turns] == ["failed", "length"]


class Ends:
    """A plugin that keeps how replies ended."""

    def __init__(self) -> None:
        """Begin with none."""
        self.heard: list[Turn] = []

    @emowatch.hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Keep it."""
        self.heard.append(turn)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"do_sample": True}], ids=str)
def test_a_loop_is_looked_up_on_the_stack_once_a_reply(
    model: Any, bank: ProbeBank, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than all else in a step; later forwards are known by the loop's place."""
    looked = []

    def look(*given: Any) -> Any:
        looked.append(given)
        return current_decoding(*given)

    monkeypatch.setattr(session, "current_decoding", look)
    with emowatch.watch(model, None, probes=bank) as watch:
        for turn in (1, 2):
            speak(model, random_ids(2, PROMPT), eos_token_id=None, **options)
            assert len(looked) == turn
    assert [turn.reply_tokens for turn in watch.trace.turns] == [NEW] * 4
