"""Dispatch: how one plugin cannot hurt another."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from types import ModuleType

import pytest

from emowatch import hookimpl
from emowatch.dispatch import BUDGET_S, BUDGET_WINDOW, Dispatcher, Meter, OnPluginError
from emowatch.errors import PluginError
from emowatch.outbox import Counts
from emowatch.plugins import PluginSpec, make_plugin_manager
from emowatch.records import Alarm, Session, Steering, TokenScore
from tests.conftest import ALARM, make_score, make_session

SESSION = make_session()
SCORE = make_score()


class Observer:
    """Keeps what it is told."""

    def __init__(self, name: str = "observer") -> None:
        """Take a name, so that several can be told apart."""
        self.name = name
        self.seen: list[TokenScore] = []
        self.failures: list[tuple[str, str, str]] = []

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Keep the score."""
        self.seen.append(score)

    @hookimpl
    def plugin_failed(self, name: str, hook: str, error: BaseException, session: Session) -> None:
        """Keep who failed where."""
        assert session is SESSION
        self.failures.append((name, hook, str(error)))


class Raiser:
    """Fails at each token."""

    name = "raiser"

    def __init__(self, error: BaseException) -> None:
        """Take what to raise."""
        self.error = error
        self.calls = 0

    @hookimpl
    def token_scored(self) -> None:
        """Fail."""
        self.calls += 1
        raise self.error


class Judge:
    """Raises an alarm at each token."""

    @hookimpl
    def judge(self) -> Alarm:
        """Judge."""
        return ALARM


def dispatch(*plugins: PluginSpec, on_error: OnPluginError = "disable") -> Dispatcher:
    """Make a dispatcher for these plugins."""
    return Dispatcher(make_plugin_manager(plugins), on_error=on_error)


def tell(dispatcher: Dispatcher, times: int = 1) -> None:
    """Say that a token was scored."""
    for _ in range(times):
        dispatcher.tell("token_scored", SESSION, score=SCORE)


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), SystemExit(3), RecursionError(), MemoryError(), StopIteration()]
)
def test_a_failing_logger_does_not_silence_the_alarm(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """This is why plugins are not called by pluggy, which stops at the first exception."""
    raiser, observer = Raiser(error), Observer()
    dispatcher = dispatch(raiser, observer, Judge())
    tell(dispatcher, 3)
    answers = list(dispatcher.call("judge", SESSION, score=SCORE))
    assert raiser.calls == 1
    assert observer.seen == [SCORE] * 3
    assert answers == [("Judge", ALARM)]
    assert dispatcher.failed and dict(dispatcher.errors) == {"raiser": 1}
    (line,) = capsys.readouterr().err.splitlines()
    assert "'raiser' is off for this session" in line and type(error).__name__ in line


def test_an_interrupt_by_the_user_is_not_a_failure() -> None:
    """Ctrl+C in the middle of a plugin must end the run."""
    dispatcher = dispatch(Raiser(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        tell(dispatcher)
    assert not dispatcher.failed


def test_a_failure_can_be_made_to_raise() -> None:
    """In the tests of a plugin one wants the traceback."""
    cause = RuntimeError("no")
    dispatcher = dispatch(Raiser(cause), on_error="raise")
    with pytest.raises(PluginError, match="'raiser' failed in token_scored: RuntimeError: no") as e:
        tell(dispatcher)
    assert e.value.__cause__ is cause


def test_a_failure_is_told_to_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """A screen or a log shows that something is missing from now on."""
    before, after = Observer("before"), Observer("after")
    tell(dispatch(before, Raiser(RuntimeError("no")), after))
    assert before.failures == after.failures == [("raiser", "token_scored", "no")]


def test_one_who_fails_at_the_news_of_a_failure_is_off_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Failing at failures must end."""

    class Fragile:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def plugin_failed(self, name: str) -> None:
            raise ValueError(name)

    observer = Observer()
    dispatcher = dispatch(Raiser(OSError()), Fragile("first"), Fragile("second"), observer)
    tell(dispatcher, 2)
    assert set(dispatcher.errors) == {"raiser", "first", "second"}
    assert {failed for failed, _, _ in observer.failures} == {"raiser", "first", "second"}
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_one_who_was_switched_off_is_not_called_again(capsys: pytest.CaptureFixture[str]) -> None:
    """An alarm of another plugin may be the end of one whose own turn to judge is next."""

    class Pair:
        judged = 0

        @hookimpl
        def alarm_raised(self) -> None:
            raise OSError

        @hookimpl
        def judge(self) -> None:
            self.judged += 1

    pair = Pair()
    dispatcher = dispatch(Judge(), pair)
    for _, alarm in dispatcher.call("judge", SESSION, score=SCORE):
        dispatcher.tell("alarm_raised", SESSION, alarm=alarm)
    assert pair.judged == 0
    assert dispatcher.errors["Pair"] == 1


def test_an_error_that_cannot_be_shown_is_still_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its text is somebody's code, and goes to a terminal."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    tell(dispatch(Raiser(MuteError())))
    tell(dispatch(Raiser(RuntimeError("two\nlines \x1b[2J"))))
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("MuteError")
    assert "two lines" in second and "\x1b" not in second


@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        ("judge", "anger"),
        ("judge", [ALARM, "anger"]),
        ("judge", 0.9),
        ("steer", ALARM),
        ("steer", [Steering(direction="joy", layer=1, strength=1.0), ALARM]),
        ("steer_turn", ALARM),
    ],
)
def test_an_answer_of_the_wrong_kind_switches_its_plugin_off(
    hook: str, answer: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """The core could not use it, and would fail where nobody knows whose it was."""
    plugin = ModuleType("answering")
    setattr(plugin, hook, hookimpl(lambda: answer))
    dispatcher = dispatch(plugin)
    assert list(dispatcher.call(hook, SESSION, score=SCORE)) == []
    assert dispatcher.failed
    assert "it must answer" in capsys.readouterr().err


def test_several_alarms_are_one_answer() -> None:
    """The specification allows a sequence."""
    plugin = ModuleType("twice")
    plugin.judge = hookimpl(lambda: (ALARM, ALARM))  # type: ignore[attr-defined]
    answers = list(dispatch(plugin).call("judge", SESSION, score=SCORE))
    assert answers == [("twice", (ALARM, ALARM))]


def test_plugins_are_called_in_the_order_given() -> None:
    """An order that is seen is one that can be relied on."""
    order: list[str] = []

    def plugin(name: str) -> ModuleType:
        made = ModuleType(name)
        made.token_scored = hookimpl(lambda: order.append(name))  # type: ignore[attr-defined]
        return made

    dispatcher = dispatch(plugin("b"), plugin("c"), plugin("a"))
    tell(dispatcher)
    assert order == ["b", "c", "a"]


def test_hooks_that_nobody_implements_cost_nothing() -> None:
    """The loop asks before it builds a record."""
    dispatcher = dispatch(Judge())
    assert dispatcher.has("judge") and not dispatcher.has("token_scored")
    tell(dispatcher)


# Queues


class Queued(Observer):
    """Hears behind a queue, when it is let."""

    queued = True

    def __init__(self) -> None:
        """Hear nothing yet."""
        super().__init__("queued")
        self.may = threading.Event()

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Keep the score, or fail where it is of another turn."""
        assert self.may.wait(10)
        if score.turn == 9:
            raise OSError("no more room")
        self.seen.append(score)


def test_nobody_waits_for_a_plugin_behind_a_queue() -> None:
    """It hears the same in the same order, later."""
    slow, quick = Queued(), Observer()
    dispatcher = dispatch(slow, quick)
    tell(dispatcher, 100)
    assert len(quick.seen) == 100 and not slow.seen
    assert dispatcher.counts["queued"] == Counts(100, 0, 0)
    slow.may.set()
    assert dispatcher.flush(SESSION)
    assert slow.seen == [SCORE] * 100
    assert dispatcher.counts == {"queued": Counts(100, 100, 0)}
    dispatcher.finish(SESSION)


def test_a_failure_behind_a_queue_is_noticed_at_the_next_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As one that is seen at once, only later."""
    slow, quick = Queued(), Observer()
    slow.may.set()
    dispatcher = dispatch(slow, quick)
    dispatcher.tell("token_scored", SESSION, score=replace(SCORE, turn=9))
    assert dispatcher.flush(SESSION)
    assert quick.failures == [("queued", "token_scored", "no more room")]
    assert dispatcher.failed
    tell(dispatcher)
    assert dispatcher.counts["queued"].received == 1
    assert "'queued' is off for this session" in capsys.readouterr().err


def test_a_failure_behind_a_queue_can_be_made_to_raise() -> None:
    """At the end of the session at last."""
    slow = Queued()
    slow.may.set()
    dispatcher = dispatch(slow, on_error="raise")
    dispatcher.tell("token_scored", SESSION, score=replace(SCORE, turn=9))
    with pytest.raises(PluginError, match="'queued' failed in token_scored: OSError: no more room"):
        dispatcher.finish(SESSION)


@pytest.mark.parametrize("hook", ["judge", "steer"])
def test_a_plugin_that_answers_cannot_be_queued(hook: str) -> None:
    """Its answer would come when the reply is over."""
    plugin = ModuleType("late")
    setattr(plugin, hook, hookimpl(lambda: None))
    plugin.queued = True  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match=f"'late': it is queued, and its {hook} would answer too"):
        dispatch(plugin)


def test_a_plugin_that_steers_cannot_wait() -> None:
    """What it asks for is to be done at the next forward."""
    plugin = ModuleType("late")
    plugin.steer = hookimpl(lambda: None)  # type: ignore[attr-defined]
    plugin.can_wait = True  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="'late': it can wait, and its steer would answer too"):
        dispatch(plugin)


# Budget


def slow_in(hook: str) -> tuple[ModuleType, list[float]]:
    """Make a plugin that takes longer than its budget in one hook, and notes its calls."""
    calls: list[float] = []

    def dawdle() -> None:
        calls.append(time.perf_counter())
        time.sleep(1.2 * BUDGET_S)

    plugin = ModuleType("slow")
    setattr(plugin, hook, hookimpl(dawdle))
    return plugin, calls


def test_a_listener_over_its_budget_is_called_behind_a_queue(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It would make every reply slow; so it hears the rest late, and loses nothing."""
    slow, calls = slow_in("token_scored")
    dispatcher = dispatch(slow, quick := Observer())
    tell(dispatcher, BUDGET_WINDOW)
    started = time.perf_counter()
    tell(dispatcher, 20)
    assert time.perf_counter() - started < 20 * BUDGET_S
    assert dispatcher.flush(SESSION)
    assert len(calls) == len(quick.seen) == BUDGET_WINDOW + 20
    assert not dispatcher.failed
    told = capsys.readouterr().err
    assert "'slow' is called behind a queue from here on" in told
    assert "its budget is 5 ms" in told
    dispatcher.finish(SESSION)


def test_one_who_answers_over_its_budget_is_switched_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody can wait for its answer, and nobody would know why the model is slow."""
    slow, calls = slow_in("judge")
    dispatcher = dispatch(slow, quick := Observer())
    for _ in range(BUDGET_WINDOW + 10):
        list(dispatcher.call("judge", SESSION, score=SCORE))
    assert len(calls) == BUDGET_WINDOW
    assert quick.failures[0][:2] == ("slow", "judge")
    assert "its budget is 5 ms" in capsys.readouterr().err


def test_one_slow_call_among_quick_ones_is_forgiven() -> None:
    """A file system hiccups; the mean decides."""

    class Hiccup:
        calls = 0

        @hookimpl
        def token_scored(self) -> None:
            self.calls += 1
            if self.calls == 1:
                time.sleep(10 * BUDGET_S)

    dispatcher = dispatch(Hiccup())
    tell(dispatcher, BUDGET_WINDOW)
    assert not dispatcher.failed
    p50, p99 = dispatcher.meters["Hiccup"].percentiles()
    assert p50 < BUDGET_S < p99


def test_a_meter_without_calls_shows_zeros() -> None:
    """A screen may ask before the first token."""
    assert Meter(deque()).percentiles() == (0.0, 0.0)
