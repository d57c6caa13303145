"""What alarms ask to be done is done: a line, an end, another system prompt, a push."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch import hookimpl
from emowatch.bank import ProbeBank
from emowatch.records import Steering, TokenScore
from emowatch.streaming import answer
from tests.conftest import END_ID
from tests.model.zoo import random_ids
from tests.watching.speaking import NEW, PROMPT, Plugin, Script, alarm_at, speak


def watched(model: Any, bank: ProbeBank, judge: Any, rows: int = 1, **options: Any) -> Any:
    """Speak under a plugin that judges; return tokens and watch."""
    with emowatch.watch(
        model, None, probes=bank, plugins=[Plugin(judge=judge)], on_plugin_error="raise"
    ) as watch:
        spoken = speak(model, random_ids(rows, PROMPT), min_new_tokens=NEW, **options)
    return spoken, watch


# Stop


@pytest.mark.parametrize("stops_first", [True, False], ids=["inner", "outer"])
def test_a_row_that_another_watch_ends_is_over_for_both(
    model: Any, bank: ProbeBank, stops_first: bool
) -> None:
    """What is read after its last token is padding, and nobody's reply."""
    stops = Plugin(judge=alarm_at(2, sequence=0, actions=("stop",)))
    plugins: list[list[Any]] = [[], [stops]]
    if stops_first:
        plugins.reverse()
    with (
        emowatch.watch(model, None, probes=bank, plugins=plugins[0]) as one,
        emowatch.watch(model, None, probes=bank, plugins=plugins[1]) as other,
    ):
        speak(model, random_ids(2, PROMPT), min_new_tokens=NEW)
        for watch in (one, other):
            lengths = [0, 0]
            for token in watch.trace.tokens:
                lengths[token.sequence] += token.offset is not None
            assert lengths == [3, NEW]
            assert [turn.reply_tokens for turn in watch.trace.turns] == [3, NEW]


@pytest.mark.parametrize(
    "options", [{}, {"use_cache": False}, {"prompt_lookup_num_tokens": 2}], ids=str
)
def test_a_reply_ends_with_the_token_of_the_alarm(
    model: Any, bank: ProbeBank, options: dict[str, Any]
) -> None:
    """The state is judged before its token is said, and that token is the last."""
    plain, _ = watched(model, bank, lambda _: None)
    spoken, watch = watched(model, bank, alarm_at(2, actions=("stop",)), **options)
    assert spoken.shape[1] == PROMPT + 3
    assert torch.equal(spoken, plain[:, : PROMPT + 3])
    (turn,) = watch.trace.turns
    assert (turn.finish_reason, turn.reply_tokens) == ("alarm", 3)
    assert watch.stopped == ()


def test_the_other_rows_of_a_batch_go_on(model: Any, bank: ProbeBank) -> None:
    """A batch is several people."""
    spoken, watch = watched(model, bank, alarm_at(1, sequence=1, actions=("stop",)), rows=3)
    assert spoken.shape[1] == PROMPT + NEW
    ends = [(t.finish_reason, t.reply_tokens) for t in watch.trace.turns]
    assert ends == [("length", NEW), ("alarm", 2), ("length", NEW)]


def test_the_next_turn_is_not_stopped(model: Any, bank: ProbeBank) -> None:
    """What one turn asked for ends with it."""
    first = alarm_at(1, actions=("stop",))
    plugin = Plugin(judge=lambda score: first(score) if score.turn == 0 else None)
    with emowatch.watch(model, None, probes=bank, plugins=[plugin]) as watch:
        for _ in range(2):
            speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert [turn.finish_reason for turn in watch.trace.turns] == ["alarm", "length"]


def test_a_reply_that_said_its_end_ended_by_itself(model: Any, bank: ProbeBank) -> None:
    """The alarm came with the last token."""
    plugin = Plugin(judge=alarm_at(1, actions=("stop",)))
    with emowatch.watch(model, None, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(1, PROMPT), logits_processor=[Script([40, END_ID])])
    assert [turn.finish_reason for turn in watch.trace.turns] == ["stop"]


def test_beams_go_on_and_that_is_said(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which row is the reply is known only at the end."""
    _, watch = watched(model, bank, alarm_at(1, actions=("stop",)), num_beams=2)
    assert [turn.finish_reason for turn in watch.trace.turns] == ["length"]
    assert "beam search cannot be stopped" in capsys.readouterr().err


@torch.no_grad()
def test_an_own_loop_can_look(model: Any, bank: ProbeBank) -> None:
    """Nothing else can be done to it."""
    plugin = Plugin(judge=alarm_at(0, actions=("stop",)))
    with emowatch.watch(model, None, probes=bank, plugins=[plugin]) as watch:
        model(random_ids(1, PROMPT))
        assert watch.stopped == (0,)


# Warn, system, steer


def test_a_warning_is_one_clean_line(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, and without what a terminal would obey."""
    watched(model, bank, alarm_at(2, actions=("warn",)))
    told = capsys.readouterr().err
    assert "emowatch: critical: joy is" in told and "(at token 2, 0.91 in mood)" in told
    assert "\x1b" not in told


def test_an_alarm_without_actions_says_nothing(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is in the trace."""
    _, watch = watched(model, bank, alarm_at(2))
    assert len(watch.trace.alarms) == 1
    assert capsys.readouterr().err == ""


def test_the_next_turn_has_the_system_prompt_of_the_alarm(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """In place of the dialogue's own, for one turn."""
    plugin = Plugin(judge=alarm_at(0, actions=("system",), system="Be calm."))
    dialogue = [{"role": "system", "content": "Be wild."}, {"role": "user", "content": "Hello"}]
    prompts = []
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        for _ in range(3):
            for _ in answer(watch, dialogue, max_new_tokens=2, min_new_tokens=2):
                pass
            plugin._judge = lambda _: None
            prompts.append(watch.trace.turns[-1].prompt_tokens)
        assert watch.take_system() is None
    calm = [{"role": "system", "content": "Be calm."}, dialogue[1]]
    lengths = [
        len(tiny_tokenizer.apply_chat_template(d, add_generation_prompt=True, return_dict=False))
        for d in (dialogue, calm, dialogue)
    ]
    assert prompts == lengths
    assert lengths[0] == lengths[1]  # so the words must be looked at
    assert "calm" in tiny_tokenizer.apply_chat_template(calm, tokenize=False)


def test_an_alarm_may_steer_until_the_turns_end(model: Any, bank: ProbeBank) -> None:
    """From the next forward on, in its row."""
    push = Steering(direction="joy", layer=1, strength=5.0)
    judge = alarm_at(1, sequence=1, actions=("steer",), steering=push)
    _, watch = watched(model, bank, judge, rows=2)
    changes = [(c.sequence, c.offset, c.strength, c.ended) for c in watch.trace.steerings]
    assert changes == [(1, 1, 5.0, False), (1, NEW - 1, 0.0, True)]
    _, plain = watched(model, bank, lambda _: None, rows=2)
    same = [
        np.allclose(one.scores.array, other.scores.array, atol=1e-6)
        for one, other in zip(watch.trace.tokens, plain.trace.tokens, strict=True)
        if one.sequence == 1 and one.offset is not None
    ]
    assert same[:2] == [True, True] and not any(same[2:])


def test_steering_that_cannot_be_done_switches_the_rule_off(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reply goes on."""
    push = Steering(direction="bliss", layer=1, strength=5.0)
    plugin = Plugin(judge=alarm_at(1, actions=("steer",), steering=push))
    with emowatch.watch(model, None, probes=bank, plugins=[plugin]) as watch:
        spoken = speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert spoken.shape[1] == PROMPT + NEW
    assert watch.plugins.errors == {"of-a-test": 1}
    assert "no bank here has that label" in capsys.readouterr().err


def test_steering_that_a_way_of_decoding_does_not_allow_leaves_the_reply_alone(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """An alarm must not end a generation by accident."""
    push = Steering(direction="joy", layer=1, strength=5.0)
    judge = alarm_at(1, actions=("steer",), steering=push)
    plain, _ = watched(model, bank, lambda _: None, use_cache=False)
    spoken, watch = watched(model, bank, judge, use_cache=False)
    assert torch.equal(spoken, plain) and not watch.trace.steerings
    assert "an alarm asked to steer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "broken",
    [
        {"level": "evil\x1b[31m"},
        {"score": None},
        {"rule": 5},
        {"actions": 5},
        {"actions": ("explode",)},
        {"steering": "joy:2"},
        {"offset": "two"},
    ],
    ids=str,
)
def test_an_alarm_of_wrong_values_switches_its_rule_off(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str], broken: dict[str, Any]
) -> None:
    """The reply goes on, and loggers never see it."""
    plugin = Plugin(judge=lambda score: replace(sound(score), **broken) if sound(score) else None)
    with emowatch.watch(model, None, probes=bank, plugins=[plugin]) as watch:
        spoken = speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert spoken.shape[1] == PROMPT + NEW
    assert watch.plugins.errors == {"of-a-test": 1} and not watch.trace.alarms
    assert "\x1b" not in capsys.readouterr().err


sound = alarm_at(1, actions=("warn",))


@pytest.mark.parametrize("broken", [{"layer": "5"}, {"strength": "2"}, {"direction": ["a"]}])
def test_a_wish_of_wrong_values_switches_its_plugin_off(
    model: Any, bank: ProbeBank, broken: dict[str, Any]
) -> None:
    """And ends no reply."""
    asked = replace(Steering(direction="joy", layer=1, strength=2.0), **broken)
    with emowatch.watch(model, None, probes=bank, plugins=[Plugin(steer=lambda _: asked)]) as watch:
        spoken = speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert spoken.shape[1] == PROMPT + NEW
    assert watch.plugins.errors == {"of-a-test": 1}


def test_a_plugin_that_was_switched_off_steers_no_more(model: Any, bank: ProbeBank) -> None:
    """Also what it asked for throughout the turn ends."""

    class Failing(Plugin):
        @hookimpl
        def steer_turn(self) -> Steering:
            return Steering(direction="joy", layer=1, strength=4.0)

    def steer(score: TokenScore) -> None:
        if score.offset == 2:
            raise RuntimeError("no more")

    with emowatch.watch(model, None, probes=bank, plugins=[Failing(steer=steer)]) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    changes = [(c.offset, c.strength, c.ended) for c in watch.trace.steerings]
    assert changes == [(0, 4.0, False), (2, 0.0, True)]


def test_a_turn_that_breaks_off_while_steered_ends_with_its_own_error(
    model: Any, bank: ProbeBank
) -> None:
    """Not with one of ours: the hooks are gone when its last states are told."""

    class Turner:
        @hookimpl
        def steer_turn(self) -> Steering:
            return Steering(direction="joy", layer=1, strength=4.0)

    def break_off(ids: Any, scores: Any) -> Any:
        if ids.shape[1] == PROMPT + 3:
            raise KeyboardInterrupt
        return scores

    with (
        pytest.raises(KeyboardInterrupt),
        emowatch.watch(model, None, probes=bank, plugins=[Turner()]),
    ):
        speak(model, random_ids(1, PROMPT), logits_processor=[break_off])
