"""The kit for plugins: every check passes for a good plugin and can fail for a bad one."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emowatch.conformance import PluginCheck, check_plugin, recorded_trace
from emowatch.conformance.company import bad_company
from emowatch.default_plugins.jsonl_log import JsonlLog
from emowatch.default_plugins.spike_alarm import SpikeAlarm
from emowatch.default_plugins.sqlite_log import SqliteLog
from emowatch.default_plugins.threshold_alarm import ThresholdAlarm
from emowatch.dispatch import Dispatcher
from emowatch.hookspecs import hookimpl
from emowatch.plugins import make_plugin_manager
from emowatch.records import Alarm
from emowatch.replaying import replay
from tests.conftest import ALARM


def failed(make: Callable[[], object], **options: Any) -> dict[str, str]:
    """Give the checks that a plugin fails, with what was found."""
    return {one.name: one.found for one in check_plugin(make, **options) if not one.passed}


@pytest.mark.parametrize(
    "make", [JsonlLog, SpikeAlarm, SqliteLog, ThresholdAlarm, lambda: ThresholdAlarm(threshold=0.3)]
)
def test_the_built_in_plugins_keep_the_contract(make: Callable[[], object]) -> None:
    """They are what people copy."""
    assert failed(make) == {}


def test_a_check_leaves_the_users_data_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that has no path writes to an empty folder that is gone afterwards."""
    home = Path(os.environ["EMOWATCH_HOME"])
    check_plugin(JsonlLog)
    assert list(home.iterdir()) == []
    assert os.environ["EMOWATCH_HOME"] == str(home)
    monkeypatch.delenv("EMOWATCH_HOME")
    check_plugin(ThresholdAlarm)
    assert "EMOWATCH_HOME" not in os.environ


class Plain:
    """Does nothing, rightly."""

    @hookimpl
    def token_scored(self, score: Any) -> None:
        """Hear."""


class FailsAtNothing(Plain):
    """Does not stand a reply without a mean."""

    @hookimpl
    def turn_finished(self, turn: Any) -> None:
        next(iter(turn.mean_scores.values()))


class FailsInWords(Plain):
    """Prints what a model said."""

    @hookimpl
    def turn_finished(self, turn: Any) -> None:
        sys.stderr.write(turn.text.encode(errors="replace").decode())


class Prints(Plain):
    """Writes where data belongs."""

    @hookimpl
    def session_finished(self) -> None:
        sys.stdout.write("done\n")


class Remembers:
    """Raises its one alarm in the first session only."""

    def __init__(self) -> None:
        self.raised = False

    @hookimpl
    def judge(self, score: Any) -> Alarm | None:
        if self.raised or score.offset is None:
            return None
        self.raised = True
        return ALARM


class CarriesOver:
    """Counts on from a session that was broken off."""

    def __init__(self) -> None:
        self.seen = 0

    @hookimpl
    def judge(self, score: Any) -> Alarm | None:
        self.seen += 1
        return ALARM if self.seen == 100 else None

    @hookimpl
    def turn_finished(self, turn: Any) -> None:
        if turn.index == 1:
            self.seen = 0


class Slow(Plain):
    """Takes longer than its budget."""

    @hookimpl
    def token_scored(self, score: Any) -> None:
        time.sleep(0.006)


class Breaks(Plain):
    """Reaches around the read-only flag."""

    @hookimpl
    def turn_finished(self, turn: Any) -> None:
        turn.settings["temperature"] = "hot"


class LeavesAThread(Plain):
    """Begins what never ends."""

    stop = threading.Event()

    @hookimpl
    def session_started(self) -> None:
        threading.Thread(target=self.stop.wait, name="left-behind").start()


class ListensToFailures(Plain):
    """Fails where another has failed."""

    @hookimpl
    def plugin_failed(self, name: str) -> None:
        raise KeyError(name)


class Misspelt:
    """Has a hook that does not exist."""

    @hookimpl
    def token_scord(self, score: Any) -> None:
        """Never called."""


class DoesNotStart:
    """Needs what is not there."""

    def __init__(self) -> None:
        raise OSError("no such device")


@pytest.mark.parametrize(
    ("make", "check", "words"),
    [
        (FailsAtNothing, "it stands hostile values", "StopIteration"),
        (FailsInWords, "a terminal is safe from it", "control characters"),
        (Prints, "stdout is left alone", "done"),
        (Remembers, "it begins anew", "otherwise the second time"),
        (CarriesOver, "it stands a session cut off", "broke off changed the next"),
        (Slow, "it is quick", "the budget is 5 ms"),
        (Breaks, "it changes nothing", "records were changed"),
        (ListensToFailures, "it stands bad company", "ListensToFailures"),
        (Misspelt, "it registers", "token_scord"),
        (DoesNotStart, "it starts", "no such device"),
    ],
)
def test_each_check_finds_its_fault(make: Callable[[], object], check: str, words: str) -> None:
    """A check that passes everything would be worse than none."""
    found = failed(make)
    assert check in found, found
    assert words in found[check]


def test_one_that_can_wait_and_stops_replies_is_found() -> None:
    """It would be switched off at its first alarm, and the reply would go on."""

    class Late(Plain):
        can_wait = True

        @hookimpl
        def judge(self, score: Any) -> Any:
            return None if score.offset != 2 else dataclasses.replace(ALARM, actions=("stop",))

    assert "leave can_wait out" in failed(Late)["it hears a session"]


def test_a_thread_that_stays_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep the interpreter from ending."""
    monkeypatch.setattr("emowatch.conformance.checks.DEADLINE_S", 0.1)
    try:
        assert "left-behind" in failed(LeavesAThread)["it leaves no thread"]
    finally:
        LeavesAThread.stop.set()


def test_a_queued_plugin_that_never_delivers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls are still waiting when the deadline is over."""
    stop = threading.Event()

    class Hangs(Plain):
        queued = True

        @hookimpl
        def token_scored(self, score: Any) -> None:
            stop.wait(30)

    monkeypatch.setattr("emowatch.dispatch.DEADLINE_S", 0.05)
    monkeypatch.setattr(Dispatcher.flush, "__defaults__", (0.05,))
    try:
        assert "calls waiting" in failed(Hangs)["it hears a session"]
    finally:
        stop.set()


def test_a_module_that_adds_banks_and_commands_is_asked_for_them(tmp_path: Path) -> None:
    """A bank that is not where it should be is found before a user asks for it."""
    import click

    class Adds:
        @hookimpl
        def register_probes(self, register: Any) -> None:
            register("mine", tmp_path / "mine")

        @hookimpl
        def register_commands(self, cli: Any) -> None:
            cli.add_command(click.Command("more"))

    group = click.Group("emowatch")
    assert failed(Adds, group=group) == {"its banks are there": "no file of mine"}
    (tmp_path / "mine").mkdir()
    found = check_plugin(Adds, group=click.Group("emowatch"))
    assert PluginCheck("its commands are added", True, "more") in found


def test_the_company_misbehaves_in_every_way_it_claims() -> None:
    """Each of them but the slow one is switched off, and a good plugin hears everything."""
    heard = []

    class Good:
        @hookimpl
        def token_scored(self, score: Any) -> None:
            heard.append(score)

    plugins = Dispatcher(make_plugin_manager([*bad_company(), Good()]))
    trace = recorded_trace()
    replay(trace, plugins)
    assert set(plugins.errors) == {"Raises", "Exits", "Recurses", "Answers", "Changes"}
    assert "Slow" in plugins.counts, "a listener over its budget is called behind a queue"
    assert len(heard) == sum(map(len, trace.by_bank.values()))
    assert [score.scores for score in heard[::2]] == [score.scores for score in trace.tokens]
