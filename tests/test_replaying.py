"""Driving plugins over a stored trace: the same calls in the same order as when it was made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from emowatch.conformance import recorded_trace
from emowatch.dispatch import Dispatcher
from emowatch.errors import PluginError
from emowatch.hookspecs import hookimpl
from emowatch.plugins import implemented_hooks, make_plugin_manager
from emowatch.records import Steering
from emowatch.replaying import Replay, replay
from emowatch.trace import Trace
from tests.conftest import ALARM, make_session, make_turn


class Diary:
    """Writes down every call of a session."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    @hookimpl
    def session_started(self, session: Any) -> None:
        self.calls.append(("session_started", session.id))

    @hookimpl
    def token_scored(self, score: Any) -> None:
        self.calls.append(("token_scored", (score.bank, score.turn, score.sequence, score.offset)))

    @hookimpl
    def judge(self, score: Any) -> Any:
        self.calls.append(("judge", (score.bank, score.turn, score.sequence, score.offset)))
        return [ALARM, ALARM] if score.offset == 1 else None

    @hookimpl
    def alarm_raised(self, alarm: Any) -> None:
        self.calls.append(("alarm_raised", alarm.rule))

    @hookimpl
    def steer(self, score: Any) -> Steering | None:
        self.calls.append(("steer", (score.bank, score.turn, score.sequence, score.offset)))
        return Steering(direction="joy", layer=1, strength=2.0) if score.offset == 1 else None

    @hookimpl
    def steering_changed(self, change: Any) -> None:
        self.calls.append(("steering_changed", change.offset))

    @hookimpl
    def turn_finished(self, turn: Any) -> None:
        self.calls.append(("turn_finished", (turn.index, turn.sequence)))

    @hookimpl
    def session_finished(self, session: Any) -> None:
        self.calls.append(("session_finished", session.id))


def small_trace() -> Trace:
    """Make two turns of one row: a prompt token and two reply tokens each."""
    trace = Trace(make_session())
    for turn in range(2):
        for position, offset in enumerate((None, 0, 1)):
            trace.tokens.append(
                turn=turn,
                sequence=0,
                position=position,
                offset=offset,
                segment="user" if offset is None else "reply",
                scores=np.array([0.25, 0.75], dtype=np.float32),
            )
        trace.turns.append(make_turn(index=turn))
    return trace


def run(trace: Trace, *plugins: object) -> Replay:
    """Replay to plugins whose errors are raised."""
    return replay(trace, Dispatcher(make_plugin_manager(plugins), on_error="raise"))


def test_hooks_are_called_in_the_order_of_the_guide() -> None:
    """All of a token's scores before it is judged, steering last and in replies alone."""
    diary = Diary()
    answer = run(small_trace(), diary)
    names = [name for name, _ in diary.calls]
    prompt, reply = ["token_scored", "judge"], ["token_scored", "judge", "steer"]
    last = ["token_scored", "judge", "alarm_raised", "alarm_raised", "steer"]
    turn = [*prompt, *reply, *last, "turn_finished"]
    assert names == ["session_started", *turn, *turn, "session_finished"]
    assert answer.tokens == 6
    assert answer.alarms == 4 * [ALARM]
    assert [(w.plugin, w.turn, w.offset) for w in answer.wishes] == [
        ("Diary", 0, 1),
        ("Diary", 1, 1),
    ]


def test_a_recorded_batch_is_told_as_it_was_recorded() -> None:
    """Several banks and rows: each state once for every bank, first bank first."""
    trace, diary = recorded_trace(), Diary()
    run(trace, diary)
    told = [what for name, what in diary.calls if name == "token_scored"]
    first, second = trace.by_bank.values()
    assert told[::2] == [(s.bank, s.turn, s.sequence, s.offset) for s in first]
    assert told[1::2] == [(s.bank, s.turn, s.sequence, s.offset) for s in second]
    finished = [what for name, what in diary.calls if name == "turn_finished"]
    assert finished == [(t.index, t.sequence) for t in trace.turns]
    changed = [what for name, what in diary.calls if name == "steering_changed"]
    assert changed == [change.offset for change in trace.steerings]
    assert changed, "the record holds steering"


def test_an_alarm_judges_a_stored_session_as_it_did_then() -> None:
    """The rule of the record, applied anew, gives the alarms that the record holds."""
    trace = recorded_trace()
    options = {"threshold": 0.4, "consecutive": 2}
    found = run(trace, ("threshold-alarm", options)).alarms
    assert [replace(alarm, score=0.0) for alarm in found] == [
        replace(alarm, score=0.0) for alarm in trace.alarms
    ]
    # A trace keeps seven decimals of a score.
    for now, then in zip(found, trace.alarms, strict=True):
        assert now.score == pytest.approx(then.score, abs=1e-6)
    assert trace.alarms, "the record holds alarms"


def test_a_session_ends_for_plugins_also_where_one_fails() -> None:
    """Whoever opened a file in `session_started` closes it."""

    class Fails(Diary):
        @hookimpl
        def judge(self, score: Any) -> Any:
            raise RuntimeError("no")

    diary = Fails()
    with pytest.raises(PluginError, match="failed in judge"):
        run(small_trace(), diary)
    assert diary.calls[-1][0] == "session_finished"


def test_a_trace_that_was_cut_between_two_banks_is_told_as_far_as_both_go() -> None:
    """The writer was killed after one line of two."""
    trace = recorded_trace()
    short = Trace(trace.session)
    first, second = trace.by_bank.values()
    for table, scores in zip(short.by_bank.values(), (first[:9], second[:8]), strict=True):
        for score in scores:
            table.add(score)
    assert run(short, Diary()).tokens == 8


def test_every_hook_of_a_session_is_driven() -> None:
    """A hook that a replay leaves out would be found when the model speaks."""
    called = {name for name, _ in _told()}
    setup = {"register_commands", "register_probes", "plugin_failed"}
    assert set(implemented_hooks(Diary)) | setup >= called
    assert called == set(implemented_hooks(Diary))


def _told() -> list[tuple[str, Any]]:
    diary = Diary()
    run(recorded_trace(), diary)
    return diary.calls
