"""The threshold alarm: when it speaks, when it is quiet, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emowatch.default_plugins.threshold_alarm import ThresholdAlarm
from emowatch.dispatch import Dispatcher
from emowatch.plugins import make_plugin_manager
from emowatch.records import Alarm
from tests.conftest import make_bank_info, make_score, make_session, make_turn

FOUR = make_bank_info("four", ("anger", "joy", "neutral", "fear"))


def alarms_of(
    plugin: ThresholdAlarm, values: Iterable[float], *, turn: int = 0, sequence: int = 0
) -> list[Alarm]:
    """Judge reply tokens with these scores of ``joy``."""
    raised: list[Alarm] = []
    for offset, value in enumerate(values):
        score = make_score([1 - value, value], turn=turn, sequence=sequence, offset=offset)
        raised += plugin.judge(score) or []
    return raised


def test_a_score_that_stays_high_raises_one_alarm() -> None:
    """It says what was seen where, in words a person can read."""
    (alarm,) = alarms_of(ThresholdAlarm("joy", level="critical"), [0.1, 0.9, 0.8125, 0.9, 0.9])
    assert alarm.rule == "joy at or above 0.80 for 3 tokens"
    assert (alarm.label, alarm.level, alarm.bank) == ("joy", "critical", "mood")
    assert (alarm.turn, alarm.sequence, alarm.offset) == (0, 0, 3)
    assert alarm.score == pytest.approx(0.9) and alarm.threshold == 0.8


def test_a_score_at_the_threshold_counts() -> None:
    """At or above: that is what the rule says."""
    assert alarms_of(ThresholdAlarm("joy", threshold=0.5, consecutive=1), [0.5])
    assert not alarms_of(ThresholdAlarm("joy", threshold=0.5, consecutive=1), [0.4999])


def test_n_of_the_last_m_tokens_are_enough_where_asked() -> None:
    """A state may flicker; the alarm comes with the token that makes it enough."""
    plugin = ThresholdAlarm("joy", consecutive=3, window=5)
    (alarm,) = alarms_of(plugin, [0.9, 0.1, 0.9, 0.1, 0.9, 0.1])
    assert alarm.offset == 4
    assert alarm.rule == "joy at or above 0.80 for 3 of 5 tokens"
    assert not alarms_of(ThresholdAlarm("joy", consecutive=3, window=4), [0.9, 0.1] * 4)


def test_a_label_is_quiet_until_it_has_fallen_below_its_release() -> None:
    """Scores around the threshold are one event, not many."""
    values = [0.9, 0.75, 0.9, 0.7, 0.9, 0.55, 0.9, 0.9]
    plugin = ThresholdAlarm("joy", consecutive=1, cooldown=0, release=0.6)
    assert [alarm.offset for alarm in alarms_of(plugin, values)] == [0, 6]
    plain = ThresholdAlarm("joy", consecutive=1, cooldown=0)
    assert [alarm.offset for alarm in alarms_of(plain, values)] == [0, 2, 4, 6, 7]
    plugin.turn_finished(make_turn(0))
    assert [alarm.offset for alarm in alarms_of(plugin, [0.9])] == [0]


def test_an_interrupted_run_begins_anew() -> None:
    """One token is noise; three in a row are a state."""
    assert not alarms_of(ThresholdAlarm("joy"), [0.9, 0.9, 0.1, 0.9, 0.9, 0.1])


def test_a_score_that_is_no_number_does_not_count() -> None:
    """Comparisons with it are always false, so the right way round matters."""
    assert not alarms_of(ThresholdAlarm("joy"), [float("nan")] * 5)
    assert not alarms_of(ThresholdAlarm("joy"), [0.9, 0.9, float("nan"), 0.9, 0.9])


def test_after_an_alarm_its_label_is_quiet_for_a_while() -> None:
    """A reply of 200 angry tokens is one thing to look at, not 198."""
    raised = alarms_of(ThresholdAlarm("joy", cooldown=4), [0.9] * 14)
    assert [alarm.offset for alarm in raised] == [2, 7, 12]
    raised = alarms_of(ThresholdAlarm("joy", cooldown=0, consecutive=2), [0.9] * 4)
    assert [alarm.offset for alarm in raised] == [1, 2, 3]


@given(
    st.lists(st.sampled_from([0.1, 0.7, 0.9]), max_size=40),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_every_alarm_follows_a_run_and_keeps_its_distance(
    values: list[float], consecutive: int, cooldown: int
) -> None:
    """The two laws of the rule, whatever the scores."""
    plugin = ThresholdAlarm("joy", 0.8, consecutive=consecutive, cooldown=cooldown)
    places = [alarm.offset or 0 for alarm in alarms_of(plugin, values)]
    for place in places:
        run = values[place + 1 - consecutive : place + 1]
        assert len(run) == consecutive and min(run) >= 0.8
    assert all(b - a > cooldown for a, b in pairwise(places))
    longest = max(
        map(len, re.findall("1+", "".join(str(int(v >= 0.8)) for v in values))), default=0
    )
    assert bool(places) == (longest >= consecutive)


def test_the_prompt_raises_no_alarm() -> None:
    """What a user writes is not what the model does."""
    plugin = ThresholdAlarm("joy", consecutive=1)
    assert plugin.judge(make_score([0, 1], offset=None, segment="user")) is None


def test_rows_and_turns_are_counted_apart() -> None:
    """Two tokens here and one there are not three in a row."""
    plugin = ThresholdAlarm("joy")
    assert not alarms_of(plugin, [0.9, 0.9])
    assert not alarms_of(plugin, [0.9, 0.9], sequence=1)
    plugin.turn_finished(make_turn(0, 0))
    assert not alarms_of(plugin, [0.9], turn=1)
    assert len(alarms_of(plugin, [0.9], sequence=1)) == 1


def test_nothing_is_kept_of_turns_that_are_over() -> None:
    """A server runs for days."""
    plugin = ThresholdAlarm()
    for turn in range(5):
        for sequence in range(2):
            alarms_of(plugin, [0.9] * 5, turn=turn, sequence=sequence)
        assert plugin._counting._rows
        for sequence in range(2):
            plugin.turn_finished(make_turn(turn, sequence))
        assert not plugin._counting._rows


def test_a_new_session_begins_with_nothing() -> None:
    """Its turns are counted from 0 again."""
    plugin = ThresholdAlarm("joy", consecutive=2)
    alarms_of(plugin, [0.9])
    plugin.session_finished()
    assert not alarms_of(plugin, [0.9])


def test_without_a_label_each_but_neutral_is_watched() -> None:
    """A calm reply is no reason for an alarm."""
    plugin = ThresholdAlarm(threshold=0.5, consecutive=1)
    plugin.session_started(make_session(FOUR))
    raised = plugin.judge(make_score([0.6, 0.1, 0.9, 0.7], bank=FOUR)) or []
    assert [alarm.label for alarm in raised] == ["anger", "fear"]


def test_neutral_can_be_asked_for() -> None:
    """Whoever names it wants it."""
    plugin = ThresholdAlarm("neutral", consecutive=1)
    assert plugin.judge(make_score([0, 0, 1, 0], bank=FOUR))


def test_only_the_bank_that_was_named_is_heard() -> None:
    """Two banks may share a label and mean different things by it."""
    plugin = ThresholdAlarm("joy", consecutive=1, bank="four")
    plugin.session_started(make_session(make_bank_info(), FOUR))
    assert plugin.judge(make_score([0, 1])) is None
    assert plugin.judge(make_score([0, 1, 0, 0], bank=FOUR))


def test_a_bank_without_the_label_is_passed_over() -> None:
    """It is enough that one bank has it."""
    plugin = ThresholdAlarm("fear", consecutive=1)
    plugin.session_started(make_session(make_bank_info(), FOUR))
    assert plugin.judge(make_score([0, 1])) is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"label": "Joy"}, "No bank here has the label 'Joy'; the labels are: anger, joy"),
        ({"bank": "mud"}, "There is no bank 'mud' in this session; there are: mood"),
    ],
)
def test_an_unknown_label_or_bank_is_said_at_once(
    options: dict[str, str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An alarm that can never be raised looks just like peace."""
    dispatcher = Dispatcher(make_plugin_manager([("threshold-alarm", options)]))
    dispatcher.tell("session_started", make_session())
    assert dispatcher.failed
    assert complaint in capsys.readouterr().err


def test_options_may_be_strings() -> None:
    """The command line has nothing else."""
    plugin = ThresholdAlarm("joy", "0.5", None, "2", "watch", "1")
    raised = alarms_of(plugin, [0.6] * 5)
    assert [alarm.offset for alarm in raised] == [1, 3]
    assert raised[0].rule == "joy at or above 0.50 for 2 tokens"


@pytest.mark.parametrize(
    ("threshold", "consecutive", "words"),
    [(0.999, 1, "at or above 0.999 for 1 token"), (0.7, 2, "at or above 0.70 for 2 tokens")],
)
def test_the_rule_names_the_very_numbers(threshold: float, consecutive: int, words: str) -> None:
    """A threshold of 0.999 is not one of 1.00."""
    plugin = ThresholdAlarm("joy", threshold, consecutive=consecutive)
    assert alarms_of(plugin, [1.0] * 3)[0].rule == f"joy {words}"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"threshold": "high"}, "'threshold' of threshold-alarm must be a number above 0 and"),
        ({"threshold": 0}, "got 0 instead"),
        ({"threshold": "1"}, "got '1' instead"),
        ({"threshold": "nan"}, "got 'nan' instead"),
        ({"consecutive": "0"}, "'consecutive' of threshold-alarm must be a whole number of tokens"),
        ({"consecutive": 2.5}, "got 2.5 instead"),
        ({"consecutive": "three"}, "1 or more; got 'three' instead"),
        ({"cooldown": "-1"}, "0 or more; got '-1' instead"),
        ({"cooldown": float("inf")}, "got inf instead"),
        ({"window": 2}, "'window' of threshold-alarm must be 3 tokens (consecutive) or more"),
        ({"release": 0.9}, "'release' of threshold-alarm must be the threshold, 0.80, or less"),
        ({"level": "loud"}, "must be watch, warning or critical; got 'loud' instead"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], complaint: str) -> None:
    """The message holds what was given and what would do."""
    with pytest.raises(ValueError, match=re.escape(complaint)):
        ThresholdAlarm(**options)
