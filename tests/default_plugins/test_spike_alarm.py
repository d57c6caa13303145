"""The spike alarm: it sees rises, not heights."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emowatch.default_plugins.spike_alarm import SpikeAlarm
from emowatch.records import Alarm
from tests.conftest import make_score, make_session, make_turn


def alarms_of(plugin: SpikeAlarm, values: Iterable[float], *, turn: int = 0) -> list[Alarm]:
    """Judge reply tokens with these scores of ``joy``."""
    raised: list[Alarm] = []
    for offset, value in enumerate(values):
        raised += plugin.judge(make_score([1 - value, value], turn=turn, offset=offset)) or []
    return raised


def test_a_fast_rise_raises_one_alarm() -> None:
    """It says how far and how fast."""
    (alarm,) = alarms_of(SpikeAlarm("joy"), [0.1, 0.2, 0.45, 0.7, 0.7])
    assert alarm.rule == "joy rose by 0.60 within 8 tokens"
    assert (alarm.offset, alarm.level) == (3, "watch")
    assert alarm.score == pytest.approx(0.7) and alarm.threshold == pytest.approx(0.6)


def test_neither_a_height_nor_a_slow_rise_nor_a_fall_is_a_spike() -> None:
    """Those are for other rules."""
    assert not alarms_of(SpikeAlarm("joy"), [0.9] * 20)
    assert not alarms_of(SpikeAlarm("joy", within=4), [n / 20 for n in range(20)])
    assert not alarms_of(SpikeAlarm("joy"), [0.9, 0.5, 0.1])
    assert not alarms_of(SpikeAlarm("joy"), [0.9])


@given(st.lists(st.floats(0, 1, width=32), max_size=30), st.integers(1, 6))
def test_every_alarm_is_such_a_rise_and_the_first_is_missed_never(
    values: list[float], within: int
) -> None:
    """The law of the rule, whatever the scores."""
    places = [alarm.offset for alarm in alarms_of(SpikeAlarm("joy", within=within), values)]
    exact = [float(make_score([1 - v, v]).scores["joy"]) for v in values]
    risen = [
        n for n in range(1, len(exact)) if exact[n] - min(exact[max(0, n - within) : n]) >= 0.5
    ]
    assert set(places) <= set(risen)
    assert places[:1] == risen[:1]


def test_what_is_no_number_is_compared_with_nothing() -> None:
    """It neither raises an alarm nor hides one."""
    assert not alarms_of(SpikeAlarm("joy"), [float("nan")] * 4)
    (alarm,) = alarms_of(SpikeAlarm("joy"), [0.1, float("nan"), 0.9])
    assert alarm.offset == 2


def test_prompts_rows_and_turns_are_apart_and_forgotten() -> None:
    """A reply does not spike against the one before it."""
    plugin = SpikeAlarm("joy")
    assert plugin.judge(make_score([1, 0], offset=None, segment="user")) is None
    assert not alarms_of(plugin, [0.1])
    assert not alarms_of(plugin, [0.9], turn=1)
    plugin.turn_finished(make_turn(0))
    plugin.turn_finished(make_turn(1))
    assert not plugin._rows
    with pytest.raises(ValueError, match="the labels are: anger, joy"):
        SpikeAlarm("fear").session_started(make_session())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rise": 0}, "'rise' of spike-alarm must be a number above 0 and below 1"),
        ({"within": 0}, "'within' of spike-alarm must be a whole number of tokens, 1 or more"),
        ({"level": "loud"}, "must be watch, warning or critical"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], complaint: str) -> None:
    """The message holds what was given and what would do."""
    with pytest.raises(ValueError, match=re.escape(complaint)):
        SpikeAlarm(**options)
