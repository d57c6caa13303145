"""What the built-in alarms share: what is to be done about an alarm, and where to steer."""

from __future__ import annotations

from typing import Any

import pytest

from emowatch.default_plugins.early_warning import EarlyWarning
from emowatch.default_plugins.rules import steering_layer
from emowatch.default_plugins.spike_alarm import SpikeAlarm
from emowatch.default_plugins.threshold_alarm import ThresholdAlarm
from emowatch.records import Alarm, BankInfo
from tests.conftest import make_bank_info, make_score, make_session


def alarms_of(plugin: Any, values: list[float], bank: BankInfo | None = None) -> list[Alarm]:
    """Begin a session and judge reply tokens with these scores of the last label."""
    known = bank or make_bank_info()
    plugin.session_started(make_session(known))
    raised: list[Alarm] = []
    for offset, value in enumerate(values):
        first = (1 - value) / (len(known.labels) - 1)
        scores = [first] * (len(known.labels) - 1) + [value]
        found = plugin.judge(make_score(scores, offset=offset, bank=known))
        raised += [] if found is None else found if isinstance(found, list) else [found]
    return raised


# Actions


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: ThresholdAlarm("joy", consecutive=1, **o),
        lambda **o: SpikeAlarm("joy", **o),
        lambda **o: EarlyWarning("joy", consecutive=1, window=1, **o),
    ],
    ids=["threshold-alarm", "spike-alarm", "early-warning"],
)
def test_an_alarm_says_what_is_to_be_done(make: Any) -> None:
    """Each rule has the same options; those that need something stand for themselves."""
    heard: list[Alarm] = []
    rule = make(action="stop+warn", system="Be calm.", steer="joy:2.5", call=heard.append)
    (alarm,) = alarms_of(rule, [0.1, 0.95])
    assert alarm.actions == ("warn", "call", "stop", "system", "steer")
    assert alarm.system == "Be calm."
    assert alarm.steering is not None
    # Of the layers 0 to 2 of three blocks, 1 and 2 are as near to the middle; the earlier is taken.
    assert (alarm.steering.direction, alarm.steering.layer) == ("joy", 1)
    assert alarm.steering.strength == 2.5
    assert heard == [alarm]


def test_what_a_log_may_keep_of_an_alarm_has_no_text_and_no_array() -> None:
    """A system prompt is text, and nobody asked for it."""
    (alarm,) = alarms_of(
        ThresholdAlarm("joy", consecutive=1, system="Be calm.", steer="joy:1@0"), [0.9]
    )
    fields = alarm.fields()
    assert fields["actions"] == ("system", "steer")
    assert not {"system", "steering"} & fields.keys()
    assert Alarm(**fields).rule == alarm.rule


def test_an_alarm_is_only_logged_by_default() -> None:
    """Nothing is done that was not asked for."""
    cases: list[dict[str, Any]] = [{}, {"action": "log"}]
    for options in cases:
        (alarm,) = alarms_of(ThresholdAlarm("joy", consecutive=1, **options), [0.9])
        assert (alarm.actions, alarm.system, alarm.steering) == ((), None, None)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"action": "halt"}, "log, warn, call, webhook, stop, system, steer, or several"),
        ({"action": "warn+"}, "or several joined by"),
        ({"action": "system"}, "needs the option 'system': its text, as in system=\"You stay"),
        ({"action": "steer"}, "needs the option 'steer': a label with its strength"),
        ({"action": "call"}, "which the command line cannot give"),
        ({"call": "print"}, "'call' of threshold-alarm must be a function"),
        ({"steer": "joy"}, "a label and a strength, such as joy:4"),
        ({"steer": "joy:much"}, "a label and a strength"),
        ({"steer": "joy:1@top"}, "a label and a strength"),
    ],
)
def test_an_action_that_cannot_be_done_is_refused(options: dict[str, Any], why: str) -> None:
    """At the start, with what is missing."""
    with pytest.raises(ValueError, match=why):
        ThresholdAlarm("joy", **options)


def test_steering_towards_what_no_bank_knows_is_refused_when_a_session_begins() -> None:
    """Only then the banks are known."""
    rule = ThresholdAlarm("joy", steer="bliss:1")
    with pytest.raises(ValueError, match="No bank here has the direction 'bliss'"):
        rule.session_started(make_session())


# Layers


def test_the_layer_to_steer_is_the_middle_one_that_a_bank_has() -> None:
    """Unless one is named; the last of all cannot be steered."""
    session = make_session(make_bank_info("mood"), n_layers=3)
    assert steering_layer(session, "joy", None) == 1
    assert steering_layer(session, "mood/joy", 2) == 2
    with pytest.raises(ValueError, match=r"no direction at layer 3 .* those of 0, 1, 2"):
        steering_layer(session, "joy", 3)
    with pytest.raises(ValueError, match="No bank here has the direction 'tone/joy'"):
        steering_layer(session, "tone/joy", None)


# Early warning


TROUBLED = make_bank_info("vectors", ("calm", "joy", "panic", "hostility"))


def test_trouble_is_summed_up_and_calm_counts_against_it() -> None:
    """Of the labels named, those that the bank has."""
    plugin = EarlyWarning(consecutive=1, window=1)
    plugin.session_started(make_session(TROUBLED))
    assert plugin.judge(make_score([0.2, 0.1, 0.3, 0.3], bank=TROUBLED)) is None  # .6 - .2
    alarm = plugin.judge(make_score([0.05, 0.15, 0.45, 0.35], bank=TROUBLED))
    assert alarm is not None
    assert alarm.rule == "panic + hostility less calm at or above 0.50 for 1 token"
    assert (alarm.label, alarm.level, alarm.actions) == ("panic", "critical", ("warn",))
    assert alarm.score == pytest.approx(0.75)


def test_a_bank_without_calm_counts_trouble_alone() -> None:
    """The rule says so."""
    (alarm,) = alarms_of(EarlyWarning("joy", consecutive=2, window=3), [0.9, 0.1, 0.9])
    assert alarm.rule == "joy at or above 0.50 for 2 of 3 tokens"


def test_an_early_warning_without_any_of_its_labels_says_which_there_are() -> None:
    """The demo banks know seven emotions, and none of these."""
    with pytest.raises(ValueError, match=r"panic, .*; there are: anger, joy\. Name some"):
        EarlyWarning().session_started(make_session())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"labels": "panic+hostilty"}, "label 'hostilty'; .* Did you mean 'hostility'"),
        ({"counter": "jooy"}, "label 'jooy'; .* Did you mean 'joy'"),
        ({"bank": "vector"}, "no bank 'vector' .* Did you mean 'vectors'"),
    ],
    ids=["label", "counter", "bank"],
)
def test_a_misspelt_name_is_refused_and_not_left_out(options: dict[str, Any], why: str) -> None:
    """An alarm that never rings, or weighs something else, is worse than none."""
    with pytest.raises(ValueError, match=why):
        EarlyWarning(**options).session_started(make_session(TROUBLED))


@pytest.mark.parametrize("labels", ["", "panic+", "panic+panic"])
def test_labels_that_are_none_are_refused(labels: str) -> None:
    """With how they are named."""
    with pytest.raises(ValueError, match="distinct labels joined by"):
        EarlyWarning(labels)
