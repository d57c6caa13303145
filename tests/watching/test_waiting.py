"""Plugins that can wait hear of several tokens together, and of the same ones as all others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch import hookimpl
from emowatch.bank import ProbeBank
from emowatch.default_plugins.threshold_alarm import ThresholdAlarm
from emowatch.plugins import load_plugin
from emowatch.records import Alarm, Steering, TokenScore
from emowatch.trace import Trace
from emowatch.watching import waiting
from tests.conftest import END_ID
from tests.model.zoo import left_padded, random_ids
from tests.watching.speaking import PROMPT, Script, alarm_at, speak

NEW = 20
LENGTHS = [1, 2, 16, 17, 18, NEW]


class Listener:
    """Hears of reply tokens, and fails or is interrupted where a test wants it."""

    def __init__(
        self, can_wait: bool, at: int | None = None, error: BaseException | None = None
    ) -> None:
        """Take whether it can wait, and at which offset it raises what."""
        self.name = "patient" if can_wait else "urgent"
        self.can_wait = can_wait
        self.heard: list[TokenScore] = []
        self._at, self._error = at, error

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Keep it."""
        if score.offset is None:
            return
        if score.offset == self._at and self._error is not None:
            raise self._error
        self.heard.append(score)


def counts_at_each_step(
    model: Any, bank: ProbeBank, listener: Listener, *others: Any, **options: Any
) -> list[int]:
    """Speak; give how many tokens were heard of whenever the next was chosen, and at the end."""
    counts = []

    def count(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts.append(len(listener.heard))
        return scores

    plugins = [listener, *others]
    with emowatch.watch(model, None, probes=bank, plugins=plugins, **options):
        speak(
            model,
            random_ids(1, PROMPT),
            logits_processor=[count],
            max_new_tokens=NEW,
            eos_token_id=None,
        )
        counts.append(len(listener.heard))
    return counts


EACH = [*range(1, NEW + 1), NEW]


def test_a_plugin_that_can_wait_hears_of_sixteen_together(
    model: Any, bank: ProbeBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, which its prompt's forward gives, comes alone; the last when generate returns."""
    monkeypatch.setattr(waiting, "WAIT_S", 60.0)  # on a machine that pauses
    counts = counts_at_each_step(model, bank, Listener(can_wait=True))
    assert counts == [1] * 16 + [17] * 4 + [NEW]


def test_any_other_hears_of_each_at_once(model: Any, bank: ProbeBank) -> None:
    """And all hear with it."""
    patient = Listener(can_wait=True)
    assert counts_at_each_step(model, bank, Listener(can_wait=False)) == EACH
    assert counts_at_each_step(model, bank, patient, Listener(can_wait=False)) == EACH


def test_nobody_waits_for_long(
    model: Any, bank: ProbeBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow model a log would lag behind by minutes."""
    monkeypatch.setattr(waiting, "WAIT_S", 0.0)
    assert counts_at_each_step(model, bank, Listener(can_wait=True)) == EACH


def test_nobody_waits_where_an_error_is_to_be_raised(model: Any, bank: ProbeBank) -> None:
    """It belongs into the forward of its token."""
    options = {"on_plugin_error": "raise"}
    assert counts_at_each_step(model, bank, Listener(can_wait=True), **options) == EACH


def test_nobody_waits_while_a_turn_is_steered(model: Any, bank: ProbeBank) -> None:
    """Where what steers fails, it must end at the token where it failed."""
    steer = ("steer", {"direction": "joy", "layer": 1})
    assert counts_at_each_step(model, bank, Listener(can_wait=True), steer) == EACH


def test_what_is_behind_a_queue_can_wait(model: Any, bank: ProbeBank) -> None:
    """The model does not wait for it either way."""

    class Queued(Listener):
        queued = True

    queued = Queued(can_wait=False)
    listener = Listener(can_wait=True)
    assert counts_at_each_step(model, bank, listener, queued)[:8] == [1] * 8


def test_who_hears_of_alarms_alone_hears_of_them_at_their_tokens(
    model: Any, bank: ProbeBank
) -> None:
    """The rule can wait, and whoever listens to it did not say so."""
    steps: list[int] = []
    heard: list[tuple[int, int | None]] = []

    class Pager:
        @hookimpl
        def alarm_raised(self, alarm: Alarm) -> None:
            heard.append((len(steps), alarm.offset))

    def count(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        return scores

    rule = ThresholdAlarm(threshold=0.15, consecutive=2, cooldown=3)
    with emowatch.watch(model, None, probes=bank, plugins=[rule, Pager()]):
        speak(
            model,
            random_ids(1, PROMPT),
            logits_processor=[count],
            max_new_tokens=NEW,
            eos_token_id=None,
        )
    assert len(heard) > 2
    assert all(offset == step for step, offset in heard)


def test_rows_that_end_apart_are_heard_of_as_without_waiting(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Padding is nobody's token, whatever the padding is; and the trace is whole afterwards."""
    ids, mask = left_padded((3, PROMPT))
    for pad in (0, END_ID):
        heard = {}
        for can_wait in (True, False):
            listener = Listener(can_wait)
            script = Script([50, END_ID], [60] * 12 + [END_ID])
            with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[listener]) as watch:
                speak(
                    model,
                    ids,
                    mask,
                    logits_processor=[script],
                    max_new_tokens=NEW,
                    eos_token_id=END_ID,
                    pad_token_id=pad,
                )
                assert [turn.reply_tokens for turn in watch.trace.turns] == [2, 13]
                assert [turn.finish_reason for turn in watch.trace.turns] == ["stop", "stop"]
            heard[can_wait] = places(listener.heard)
        assert heard[True] == heard[False]
        assert len(heard[True]) == 15


@pytest.mark.parametrize("new", LENGTHS)
def test_waiting_changes_nothing_that_is_heard(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, new: int
) -> None:
    """The same tokens, scores, alarms and lines in the same order, in a batch, up to rounding."""
    ids, mask = left_padded((3, PROMPT))
    found = {}
    for can_wait in (True, False):
        path = tmp_path / f"{can_wait}.jsonl"
        rule = ThresholdAlarm(threshold=0.15, consecutive=2, cooldown=3)
        listener = Listener(can_wait)
        plugins = [listener, ("jsonl-log", {"path": path}), rule]
        with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=plugins) as watch:
            spoken = speak(model, ids, mask, max_new_tokens=new, eos_token_id=None)
        found[can_wait] = spoken, listener.heard, watch.trace, Trace.load(path)
    (spoken, heard, trace, log), (other_spoken, other_heard, other_trace, other_log) = (
        found[True],
        found[False],
    )
    assert torch.equal(spoken, other_spoken)
    assert len(heard) == 2 * new
    for ours, theirs in (
        (heard, other_heard),
        (trace.tokens, other_trace.tokens),
        (log.tokens, other_log.tokens),
    ):
        assert places(ours) == places(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert np.allclose(one.scores.array, other.scores.array, atol=1e-6)
    assert new < 3 or trace.alarms
    assert [a.rule for a in trace.alarms] == [a.rule for a in other_trace.alarms]
    assert [a.offset for a in trace.alarms] == [a.offset for a in other_trace.alarms]
    assert [t.token_ids for t in trace.turns] == [t.token_ids for t in other_trace.turns]


def places(scores: Sequence[TokenScore]) -> list[tuple[int, int, int, int | None, str]]:
    """Say which tokens these are, in their order."""
    return [(s.turn, s.sequence, s.position, s.offset, s.segment) for s in scores]


def test_one_that_fails_late_harms_nobody(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is off, and the others hear of every token."""
    bad = Listener(True, at=5, error=RuntimeError("tired"))
    bad.name = "bad"
    good = Listener(True)
    with emowatch.watch(model, None, probes=bank, plugins=[bad, good]) as watch:
        speak(model, random_ids(1, PROMPT), max_new_tokens=NEW, eos_token_id=None)
    assert [s.offset for s in bad.heard] == list(range(5))
    assert [s.offset for s in good.heard] == list(range(NEW))
    assert len([t for t in watch.trace.tokens if t.offset is not None]) == NEW
    assert capsys.readouterr().err.count("RuntimeError: tired") == 1


def test_ctrl_c_among_tokens_that_waited_loses_none_of_the_others(
    model: Any, bank: ProbeBank
) -> None:
    """The turn's end tells what is left; the plugin that was interrupted missed one."""
    listener = Listener(True, at=5, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        with emowatch.watch(model, None, probes=bank, plugins=[listener]) as watch:
            speak(model, random_ids(1, PROMPT), max_new_tokens=NEW, eos_token_id=None)
    assert [s.offset for s in listener.heard] == [*range(5), *range(6, 17)]
    assert [t.offset for t in watch.trace.tokens if t.offset is not None] == list(range(17))
    assert watch.trace.turns[0].reply_tokens == 17


@pytest.mark.parametrize("at", [NEW - 2, NEW - 1])
def test_ctrl_c_at_the_end_of_a_reply_reaches_the_caller(
    model: Any, bank: ProbeBank, at: int
) -> None:
    """What waits is told while the loop still runs; where it is collected nobody would hear."""
    listener = Listener(True, at=at, error=KeyboardInterrupt())
    with emowatch.watch(model, None, probes=bank, plugins=[listener]):
        with pytest.raises(KeyboardInterrupt):
            speak(model, random_ids(1, PROMPT), max_new_tokens=NEW, eos_token_id=None)


def test_a_plugin_that_asks_for_the_trace_while_it_is_told_hears_of_nothing_twice(
    model: Any, bank: ProbeBank
) -> None:
    """Asking scores what waits; what is just being told waits no more."""
    lengths = []

    class Asks(Listener):
        @hookimpl
        def token_scored(self, score: TokenScore) -> None:
            super().token_scored(score)
            lengths.append(len(watch.trace.tokens))

    asks = Asks(can_wait=True)
    with emowatch.watch(model, None, probes=bank, plugins=[asks]) as watch:
        speak(model, random_ids(1, PROMPT), max_new_tokens=NEW, eos_token_id=None)
    assert [s.offset for s in asks.heard] == list(range(NEW))
    assert lengths == list(range(1, PROMPT + NEW))


@pytest.mark.parametrize(
    "asked",
    [
        {"actions": ("stop",)},
        {"actions": ("steer",), "steering": Steering(direction="joy", layer=1)},
    ],
    ids=["stop", "steer"],
)
def test_one_that_can_wait_must_not_change_the_running_reply(
    model: Any, bank: ProbeBank, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """It would come up to sixteen tokens late; it is off, and the reply is as without it."""

    class Late:
        can_wait = True

        @hookimpl
        def judge(self, score: TokenScore) -> Alarm | None:
            found: Alarm | None = alarm_at(2, **asked)(score)
            return found

    ids = random_ids(1, PROMPT)
    plain = speak(model, ids, max_new_tokens=NEW, eos_token_id=None)
    with emowatch.watch(model, None, probes=bank, plugins=[Late()]) as watch:
        spoken = speak(model, ids, max_new_tokens=NEW, eos_token_id=None)
    assert torch.equal(spoken, plain)
    assert watch.plugins.errors["Late"] == 1
    assert not watch.trace.steerings
    told = capsys.readouterr().err
    assert "it can wait, and its alarm asks to change the running reply" in told


@pytest.mark.parametrize(
    ("option", "can_wait"),
    [
        ({}, True),
        ({"action": "log"}, True),
        ({"action": "warn"}, False),
        ({"action": "stop"}, False),
        ({"system": "Be calm."}, False),
        ({"steer": "joy:2"}, False),
        ({"call": print}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["threshold-alarm", "spike-alarm", "early-warning"])
def test_rules_can_wait_where_they_only_log(
    name: str, option: dict[str, Any], can_wait: bool
) -> None:
    """What is done about an alarm is done at its token."""
    if name == "early-warning" and not option:
        option = {"action": "log"}  # it warns by itself
    plugin: Any = load_plugin((name, option))[1]
    assert plugin.can_wait is can_wait
