"""The drift alarm: quiet where nothing drifts, and heard where something does."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from emowatch.conformance import check_plugin
from emowatch.default_plugins.drift_alarm import DriftAlarm
from emowatch.dispatch import Dispatcher
from emowatch.drift.baseline import Baseline, calibrate
from emowatch.labels import EKMAN7
from emowatch.plugins import make_plugin_manager
from emowatch.records import Alarm, Scores
from emowatch.replaying import replay
from emowatch.trace import Trace
from tests.conftest import make_bank_info, make_score, make_session
from tests.drift.sessions import session


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrate on 120 quiet sessions of 100 tokens."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("drift") / "baseline.json"
    calibrate([session(rng) for _ in range(120)], rate=1.0).save(path)
    return path


def alarms_of(baseline: Path, trace: Trace) -> list[Alarm]:
    """Replay a session to the alarm."""
    plugins = Dispatcher(make_plugin_manager([DriftAlarm(baseline)]), on_error="raise")
    return replay(trace, plugins).alarms


def test_false_alarms_are_as_rare_as_promised(baseline: Path) -> None:
    """On 100 sessions that the baseline has not seen, repeated alarms counted."""
    rng = np.random.default_rng(1)
    traces = [session(rng) for _ in range(100)]
    alarms = sum(len(alarms_of(baseline, trace)) for trace in traces)
    assert 1000 * alarms / 10_000 <= Baseline.load(baseline).bound


def test_a_shift_is_found_with_its_label_direction_and_onset(baseline: Path) -> None:
    """In nearly every session, and after it began."""
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(20):
        alarms = [
            alarm
            for alarm in alarms_of(baseline, session(rng, 200, shift=2.5, since=60, turns=1))
            if alarm.label == "joy" and " up " in alarm.rule
        ]
        found += any(alarm.offset is not None and 60 <= alarm.offset < 160 for alarm in alarms)
    assert found >= 18


def test_an_alarm_tells_size_direction_onset_chart_and_p(baseline: Path) -> None:
    """In words that a person can read."""
    rng = np.random.default_rng(3)
    alarms = alarms_of(baseline, session(rng, 200, shift=4, since=100, turns=1))
    (alarm, *_) = [one for one in alarms if one.label == "joy"]
    pattern = r"joy drifts up by 0\.\d\d for some \d+ tokens \((EWMA|CUSUM) up, p 0\.\d{3}\)"
    assert re.fullmatch(pattern, alarm.rule)
    assert alarm.threshold == Baseline.load(baseline).threshold
    assert alarm.level == "warning"
    drift = alarm.drift
    assert drift is not None and alarm.offset is not None
    assert f"by {drift.size:.2f} for some {drift.tokens} tokens ({drift.chart}" in alarm.rule
    assert (drift.segment, drift.direction, drift.turn) == ("reply", "up", 0)
    assert drift.place == alarm.offset - drift.tokens + 1
    assert 90 <= drift.place <= 110
    assert 0 < drift.p < 0.05


def test_a_row_as_long_as_the_longest_raises_one_alarm(tmp_path: Path) -> None:
    """The promise counts rows that raise any; one that raised two would break it."""
    rng = np.random.default_rng(8)
    path = tmp_path / "b.json"
    rows = [session(rng, length) for length in rng.integers(20, 200, 80).tolist()]
    calibrate(rows, rate=3.0).save(path)
    base = Baseline.load(path)
    assert base.longest > 1.5 * base.tokens / len(base.maxima)
    drifting = session(rng, base.longest // 2 * 2, shift=6, since=0)
    assert len(alarms_of(path, drifting)) == 1


def test_what_drifts_on_is_told_once_a_row_length(baseline: Path) -> None:
    """Not at every token, and not once for every label: that would break the promise."""
    rng = np.random.default_rng(4)
    alarms = alarms_of(baseline, session(rng, 400, shift=5, turns=1))
    places = [alarm.offset or 0 for alarm in alarms]
    assert 1 <= len(places) <= 4
    assert all(later - one >= 100 for one, later in pairwise(places))


def test_the_promise_holds_where_much_is_allowed(tmp_path: Path) -> None:
    """Where nearly every row raises an alarm, none raises many."""
    rng = np.random.default_rng(7)
    path = tmp_path / "loose.json"
    base = calibrate([session(rng) for _ in range(60)], rate=9.9)
    base.save(path)
    assert sum(one > base.threshold for one in base.maxima) > 20
    alarms = sum(len(alarms_of(path, session(rng))) for _ in range(60))
    assert 1000 * alarms / 6_000 <= base.bound


def test_rows_are_followed_apart_and_through_all_turns(baseline: Path) -> None:
    """A drift over ten short replies is one drift."""
    rng = np.random.default_rng(5)
    short = session(rng, 200, shift=3, since=50, turns=10)
    assert any(alarm.label == "joy" for alarm in alarms_of(baseline, short))
    one, two = session(rng, 100), session(rng, 100)
    both = Trace(one.session)
    for a, b in zip(one.tokens, two.tokens, strict=True):
        for row, score in enumerate((a, b)):
            both.tokens.add(replace(score, sequence=row))
    apart = len(alarms_of(baseline, one)) + len(alarms_of(baseline, two))
    assert len(alarms_of(baseline, both)) == apart


def test_prompts_thoughts_and_other_banks_are_not_heard(baseline: Path) -> None:
    """The baseline is of replies."""
    plugin = DriftAlarm(baseline)
    bank = make_bank_info(labels=EKMAN7)
    plugin.session_started(make_session(bank))
    extreme = [0.0] * 6 + [1.0]
    for _ in range(200):
        assert plugin.judge(make_score(extreme, bank=bank, offset=None)) is None
        assert plugin.judge(make_score(extreme, bank=bank, segment="thinking")) is None
        other = make_bank_info("other", EKMAN7)
        assert plugin.judge(make_score(extreme, bank=other)) is None


def test_messages_of_the_user_are_followed_once_however_often_prompts_repeat_them(
    tmp_path: Path,
) -> None:
    """A baseline of the segment `user` hears of each message when its reply begins."""
    rng = np.random.default_rng(9)
    path = tmp_path / "user.json"
    quiet = [conversation(rng, []) for _ in range(60)]
    base = calibrate(quiet, segment="user", rate=2)
    base.save(path)
    assert (base.segment, base.longest, base.tokens) == ("user", 80, 30 * 80)
    assert "user tokens" in base.told

    alarms = alarms_of(path, conversation(rng, [4, 5, 6, 7]))
    assert len(alarms) == 1
    (alarm,) = alarms
    assert alarm.label == "joy" and alarm.rule.startswith("joy in user drifts up by ")
    assert alarm.drift is not None
    assert (alarm.drift.segment, alarm.turn, alarm.offset) == ("user", 4, 0)
    # A CUSUM may have left zero a little before; earlier messages stand before it in the prompt.
    assert (3, 33) <= (alarm.drift.turn, alarm.drift.place) <= (4, 47)
    assert sum(len(alarms_of(path, one)) for one in quiet) <= 60 * 80 / 1000 * 2


def test_tokens_without_numbers_move_no_onset(baseline: Path) -> None:
    """They are left out of the charts, and out of what is counted."""
    clean, broken = (
        session(np.random.default_rng(11), 200, shift=4, since=100, turns=1) for _ in range(2)
    )
    holes = Trace(broken.session)
    for score in broken.tokens:
        if score.offset == 105:
            for _ in range(20):
                holes.tokens.add(replace(score, scores=Scores(EKMAN7, np.full(7, np.nan))))
        holes.tokens.add(score)
    (first, *_), (second, *_) = alarms_of(baseline, clean), alarms_of(baseline, holes)
    assert first.drift == second.drift and first.drift is not None
    assert first.offset == second.offset != 105


def test_a_long_message_raises_as_many_as_a_long_reply(tmp_path: Path) -> None:
    """Each is told, and each is in the trace."""
    rng = np.random.default_rng(12)
    path = tmp_path / "user.json"
    heard: list[Alarm] = []
    calibrate([conversation(rng, []) for _ in range(60)], segment="user", rate=2).save(path)
    trace = Trace(make_session(make_bank_info(labels=EKMAN7)))
    joyful = np.where(np.array(EKMAN7) == "joy", 0.9, 0.1 / 6)
    for place in range(401):
        trace.tokens.append(
            turn=0,
            sequence=0,
            position=place,
            offset=0 if place == 400 else None,
            segment="reply" if place == 400 else "user",
            scores=joyful.astype(np.float32),
        )
    plugin = DriftAlarm(path, call=heard.append)
    raised = replay(trace, Dispatcher(make_plugin_manager([plugin]), on_error="raise")).alarms
    assert len(raised) == len(heard) == 5  # one in each 80 tokens
    assert {alarm.offset for alarm in raised} == {0}


def conversation(rng: np.random.Generator, joyful: list[int]) -> Trace:
    """Make 8 turns, each with 10 tokens of the user; prompts repeat all messages so far."""
    trace = Trace(make_session(make_bank_info(labels=EKMAN7)))
    said: list[np.ndarray] = []
    for turn in range(8):
        logits = rng.normal(size=(10, 7)) + (4 * np.eye(7)[EKMAN7.index("joy")]) * (turn in joyful)
        said.append((np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32))
        position = 0
        for message in said:
            for scores in message:
                trace.tokens.append(
                    turn=turn,
                    sequence=0,
                    position=position,
                    offset=None,
                    segment="user",
                    scores=scores,
                )
                position += 1
            if message is not said[-1]:
                position += 1  # what the template writes between messages
        for offset in range(3):
            trace.tokens.append(
                turn=turn,
                sequence=0,
                position=position + offset,
                offset=offset,
                segment="reply",
                scores=np.full(7, 1 / 7, np.float32),
            )
    return trace


def test_another_bank_or_version_is_refused_at_the_start(baseline: Path) -> None:
    """Its thresholds would mean nothing."""
    plugin = DriftAlarm(baseline)
    with pytest.raises(ValueError, match="of the bank 'mood', and this session has other"):
        plugin.session_started(make_session(make_bank_info("other", EKMAN7)))
    newer = replace(make_bank_info(labels=EKMAN7), sha256="new")
    with pytest.raises(ValueError, match="calibrate again"):
        plugin.session_started(make_session(newer))


def test_it_keeps_the_contract(baseline: Path) -> None:
    """On a session of its own bank, too."""
    rng = np.random.default_rng(6)
    trace = session(rng, 60, shift=4, since=20)
    checks = check_plugin(lambda: DriftAlarm(baseline), trace)
    # Hostile names are of other banks, which it refuses in words.
    failed = [check for check in checks if not check.passed]
    assert [check.name for check in failed] == ["it stands hostile values"]
    assert "this session has" in failed[0].found
