"""What a plugin must stand: a recorded session, a hostile one, one cut off, and bad company."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emowatch.conformance.company import (
    bad_company,
    broken_turns,
    cut_trace,
    hostile_alarm,
    hostile_trace,
)
from emowatch.dispatch import BUDGET_S, Dispatcher
from emowatch.errors import PluginError
from emowatch.outbox import DEADLINE_S
from emowatch.plugins import collect, describe, implemented_hooks, make_plugin_manager
from emowatch.records import Alarm
from emowatch.replaying import Replay, replay
from emowatch.text import clean, clean_line
from emowatch.trace import Trace

RECORDED = Path(__file__).with_name("recorded.jsonl")


@dataclass(frozen=True, slots=True)
class PluginCheck:
    """One finding."""

    name: str
    passed: bool
    found: str


@dataclass(slots=True)
class _Said:
    """What was written while a plugin ran."""

    out: str = ""
    err: str = ""


def recorded_trace() -> Trace:
    """Open the session that every plugin is held against.

    The embedded demo model answered two batches of two messages, read by two banks, with an
    alarm and some steering.
    """
    return Trace.load(RECORDED)


def check_plugin(
    make: Callable[[], object], trace: Trace | None = None, *, group: Any = None
) -> list[PluginCheck]:
    """Hold a plugin to the contract and say what was found, check by check.

    Meanwhile the folder of the user's data is an empty one, and what is written to stdout and
    stderr is caught.

    Args:
        make: makes the plugin anew; its class, or a function without arguments.
        trace: the session to hold it against; by default `recorded_trace`.
        group: a click group for ``register_commands``; without one that hook is not called.
    """
    known = recorded_trace() if trace is None else trace
    with _apart() as said:
        try:
            plugin = make()
            make_plugin_manager([plugin])
        except PluginError as error:
            return [PluginCheck("it registers", False, clean_line(str(error), 300))]
        except (Exception, SystemExit) as error:
            return [PluginCheck("it starts", False, describe(error))]
        hooks = implemented_hooks(plugin)
        checks = [PluginCheck("it registers", True, ", ".join(hooks))]
        for name, check in _CHECKS.items():
            try:
                found = check(make, copy.deepcopy(known))
            except PluginError as error:  # what it raised, and in which hook
                checks.append(PluginCheck(name, False, clean_line(str(error), 300)))
            except (Exception, SystemExit) as error:
                checks.append(PluginCheck(name, False, describe(error)))
            else:
                checks.append(PluginCheck(name, True, found))
        checks += _set_up(plugin, hooks, group)
    checks.append(
        PluginCheck("stdout is left alone", not said.out, clean_line(repr(said.out[:80])))
        if said.out
        else PluginCheck("stdout is left alone", True, "nothing was written there")
    )
    harmless = clean(said.err) == said.err
    told = "what it says is clean" if harmless else "control characters reached stderr"
    checks.append(PluginCheck("a terminal is safe from it", harmless, told))
    return checks


# The checks: each returns what it found, or raises


def _hears(make: Callable[[], object], trace: Trace) -> str:
    """Hear a whole session without failing."""
    plugin = make()
    answer, _ = _run([plugin], trace)
    if getattr(plugin, "can_wait", False) and any(
        {"stop", "steer"} & set(alarm.actions) for alarm in answer.alarms
    ):
        raise ValueError(
            "it can wait, and its alarm asks to change the running reply; leave can_wait out."
        )
    return (
        f"{answer.tokens} states, {len(answer.alarms)} alarms raised, "
        f"{len(answer.wishes)} wishes to steer"
    )


def _is_quick(make: Callable[[], object], trace: Trace) -> str:
    """Stay within the budget of the hooks that are called for each token, or be queued."""
    plugin = make()
    _, plugins = _run([plugin], trace)
    if getattr(plugin, "queued", False):
        return "queued: the model does not wait for it"
    means = [sum(meter.last) / len(meter.last) for meter in plugins.meters.values() if meter.last]
    if not means:
        return "it has no hook that is called for each token"
    if max(means) > BUDGET_S:
        raise TimeoutError(
            f"{1000 * max(means):.1f} ms a call; the budget is {1000 * BUDGET_S:g} ms"
        )
    return f"within {1000 * BUDGET_S:g} ms a call"


def _begins_anew(make: Callable[[], object], trace: Trace) -> str:
    """Answer a second session as the first: nothing of one may colour the next."""
    plugin = make()
    first, _ = _run([plugin], trace)
    try:
        second, _ = _run([plugin], trace)
    except PluginError as error:
        if isinstance(error.__cause__, ValueError):  # a sentence for the user
            return f"refused in words: {clean_line(str(error.__cause__), 120)}"
        raise
    if second != first:
        raise ValueError("the same session was answered otherwise the second time.")
    return "the second session is answered as the first"


def _changes_nothing(make: Callable[[], object], trace: Trace) -> str:
    """Leave the records as they are."""
    before = [table.array() for table in trace.by_bank.values()]
    turns = copy.deepcopy(trace.turns)
    _run([make()], trace)
    same = all(
        np.array_equal(table.array(), old, equal_nan=True)
        for table, old in zip(trace.by_bank.values(), before, strict=True)
    )
    if not same or turns != trace.turns:
        raise ValueError("the records were changed.")
    return "records are as they were"


def _stands_hostility(make: Callable[[], object], trace: Trace) -> str:
    """Stand scores that are no numbers and text that is made to harm."""
    hostile = hostile_trace(trace)
    plugins = _dispatcher([make()])
    session = hostile.session
    replay(hostile, plugins)
    plugins = _dispatcher([make()])
    plugins.tell("session_started", session)
    plugins.tell("alarm_raised", session, alarm=hostile_alarm(session))
    for turn in broken_turns(hostile):
        plugins.tell("turn_finished", session, turn=turn)
    failed = RuntimeError(session.model)
    plugins.tell("plugin_failed", session, name=session.model, hook="judge", error=failed)
    plugins.tell("session_finished", session)
    plugins.finish(session)
    return "NaN, control characters, empty and failed replies"


def _stands_an_end(make: Callable[[], object], trace: Trace) -> str:
    """Stand a session that is broken off inside a turn, and the whole one after it."""
    plugin = make()
    _run([plugin], cut_trace(trace))
    fresh, _ = _run([make()], trace)
    try:
        after, _ = _run([plugin], trace)
    except PluginError as error:
        if isinstance(error.__cause__, ValueError):
            return "it takes one session, and says so"
        raise
    if after.alarms != fresh.alarms:
        raise ValueError("what was left of a session that broke off changed the next one.")
    return "nothing is left of a session that broke off"


def _stands_company(make: Callable[[], object], trace: Trace) -> str:
    """Answer beside plugins that fail, wait and lie as it does alone."""
    alone, _ = _run([make()], trace)
    company = bad_company()
    manager = make_plugin_manager([*company[:3], make(), *company[3:]])
    plugins = Dispatcher(manager)
    names = {type(one).__name__ for one in company}
    answer = replay(trace, plugins)
    plugins.flush(trace.session)
    if others := set(plugins.errors) - names:
        raise ValueError(f"it failed there: {', '.join(map(clean_line, others))}.")
    if _of_one(answer.alarms) != _of_one(alone.alarms) or len(answer.wishes) != len(alone.wishes):
        raise ValueError("its answers are not those that it gives alone.")
    return f"beside {len(company)} that misbehave"


def _leaves_no_thread(make: Callable[[], object], trace: Trace) -> str:
    """End the threads that it began; a daemon may stay until the interpreter ends."""
    before = set(threading.enumerate())
    _run([make()], trace)
    left = [one for one in threading.enumerate() if one not in before and not one.daemon]
    for one in left:
        one.join(DEADLINE_S)
    if alive := [one.name for one in left if one.is_alive()]:
        raise TimeoutError(f"still alive after {DEADLINE_S:g} s: {', '.join(alive)}")
    return "none that would keep the interpreter from ending"


_CHECKS: dict[str, Callable[[Callable[[], object], Trace], str]] = {
    "it hears a session": _hears,
    "it is quick": _is_quick,
    "it begins anew": _begins_anew,
    "it changes nothing": _changes_nothing,
    "it stands hostile values": _stands_hostility,
    "it stands a session cut off": _stands_an_end,
    "it stands bad company": _stands_company,
    "it leaves no thread": _leaves_no_thread,
}


def _set_up(plugin: object, hooks: tuple[str, ...], group: Any) -> list[PluginCheck]:
    """Call the hooks that add commands and banks."""
    checks = []
    manager = make_plugin_manager([plugin])
    if "register_probes" in hooks:
        banks: dict[str, Path] = {}
        failures = collect(manager, "register_probes", register=banks.__setitem__)
        gone = [name for name, path in banks.items() if not Path(path).exists()]
        wrong = next(iter(failures.values()), "") or ", ".join(f"no file of {n}" for n in gone)
        checks.append(PluginCheck("its banks are there", not wrong, wrong or ", ".join(banks)))
    if "register_commands" in hooks and group is not None:
        failures = collect(manager, "register_commands", cli=group)
        wrong = next(iter(failures.values()), "")
        names = ", ".join(group.commands)
        checks.append(PluginCheck("its commands are added", not wrong, wrong or names))
    return checks


def _run(plugins: list[object], trace: Trace) -> tuple[Replay, Dispatcher]:
    """Drive plugins over a trace; what one raises is raised."""
    dispatcher = _dispatcher(plugins)
    answer = replay(trace, dispatcher)
    for name, counts in dispatcher.counts.items():
        if counts.pending:
            raise TimeoutError(f"{name} left {counts.pending} of {counts.received} calls waiting")
    return answer, dispatcher


def _dispatcher(plugins: list[object]) -> Dispatcher:
    return Dispatcher(make_plugin_manager(plugins), on_error="raise")


def _of_one(alarms: list[Alarm]) -> list[tuple[str, str, int, int, int | None]]:
    return [(a.rule, a.label, a.turn, a.sequence, a.offset) for a in alarms]


@contextlib.contextmanager
def _apart() -> Iterator[_Said]:
    """Give the user's data an empty folder, and catch what is written."""
    said, out, err = _Said(), io.StringIO(), io.StringIO()
    before = os.environ.get("EMOWATCH_HOME")
    with tempfile.TemporaryDirectory(prefix="emowatch-check-") as folder:
        os.environ["EMOWATCH_HOME"] = folder
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                yield said
        finally:
            if before is None:
                del os.environ["EMOWATCH_HOME"]
            else:
                os.environ["EMOWATCH_HOME"] = before
            said.out, said.err = out.getvalue(), err.getvalue()
