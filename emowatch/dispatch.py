"""Call the plugins of one session so that one cannot hurt another.

pluggy finds and checks implementations; the calling is done here, because pluggy stops at the
first exception and a monitor must not (pluggy #419).
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from operator import itemgetter
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from emowatch.errors import PluginError
from emowatch.outbox import DEADLINE_S, Counts, Outbox
from emowatch.plugins import ANSWERED, describe
from emowatch.records import ACTIONS, SEGMENTS, Alarm, Drift, Level, Session, Steering
from emowatch.text import clean_line

if TYPE_CHECKING:
    import pluggy

OnPluginError: TypeAlias = Literal["disable", "raise"]
TOKEN_HOOKS = ("token_scored", "judge", "alarm_raised", "steer", "steering_changed")
HEARING = ("token_scored", "judge", "steer")
"""Hooks by which a plugin hears of each token."""
BUDGET_S = 0.005
"""Mean time per call that a plugin may take in the per-token hooks."""
BUDGET_WINDOW = 64
"""Calls over which the mean is taken."""
Call: TypeAlias = tuple[str, Callable[..., None], Sequence[Any]]
"""A hook, the function that implements it, and what it is called with."""


Gather: TypeAlias = Callable[[Mapping[str, Any]], Sequence[Any]]
"""Takes what an implementation is called with out of all that its hook has."""


@dataclass(slots=True)
class Meter:
    """How long a plugin takes per call, over its last 64 calls of a session."""

    last: deque[float] = field(default_factory=lambda: deque(maxlen=BUDGET_WINDOW))
    calls: int = 0

    def percentiles(self) -> tuple[float, float]:
        """Give the 50th and 99th percentile in seconds; zeros before the first call."""
        times = sorted(self.last) or [0.0]
        return times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]


_Impl: TypeAlias = tuple[str, Callable[..., Any], Gather, Meter]
"""A plugin's name and function, what gives the function its arguments, and the plugin's meter."""


class Dispatcher:
    """Call the plugins of one session, each on its own.

    A plugin that raises is off for the rest of the session: one line on stderr, a counter, and
    `plugin_failed` for the others. One whose attribute `queued` is true is called on a thread of
    its own, behind a bounded queue, and so is one that takes longer than its budget, if it only
    listens; one that answers is switched off then.

    Attributes:
        on_error: what happens when a plugin fails.
        errors: how often each plugin that was switched off has failed.
        meters: how long each plugin takes in the hooks that are called for each token.
        is_heard: whether any plugin that is still on hears of tokens.
        is_urgent: whether any of those has to hear of each before the next one is computed.
    """

    def __init__(
        self, manager: pluggy.PluginManager, *, on_error: OnPluginError = "disable"
    ) -> None:
        """Take the plugins registered with `manager`, in pluggy's order."""
        self.on_error = on_error
        self.errors: Counter[str] = Counter()
        self.meters = {name: Meter() for name, _ in manager.list_name_plugin()}
        self._outboxes: dict[str, Outbox[Call]] = {
            name: Outbox(_deliver)
            for name, plugin in manager.list_name_plugin()
            if getattr(plugin, "queued", False)
        }
        self._patient = {
            name
            for name, plugin in manager.list_name_plugin()
            if getattr(plugin, "can_wait", False)
        }
        self._impls: dict[str, list[_Impl]] = {
            hook: [
                (i.plugin_name, i.function, _gathering(i.argnames), self.meters[i.plugin_name])
                for i in reversed(impls)
            ]
            for hook in vars(manager.hook)
            if not hook.startswith("_") and (impls := getattr(manager.hook, hook).get_hookimpls())
        }
        self._note_hearers()

    def _note_hearers(self) -> None:
        # Who hears of alarms hears of the tokens that somebody judges.
        hooks = (*HEARING, "alarm_raised") if self.has("judge") else HEARING
        hearers = {impl[0] for hook in hooks for impl in self._impls.get(hook, ())}
        self.is_heard = bool(hearers)
        # An error is to be raised where it arises, in the forward of its token.
        self.is_urgent = self.is_heard and (
            self.on_error == "raise" or not hearers <= self._patient | self._outboxes.keys()
        )

    def can_wait(self, name: str) -> bool:
        """Tell whether a plugin said that it may hear of a token after the next ones."""
        return name in self._patient

    def has(self, hook: str) -> bool:
        """Tell whether any plugin that is still on implements `hook`."""
        return bool(self._impls.get(hook))

    @property
    def failed(self) -> bool:
        """Whether any plugin was switched off."""
        return bool(self.errors)

    def call(self, hook: str, session: Session, /, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """Call each implementation and yield plugin name and answer where it is not `None`.

        It is a generator: `tell` runs it for hooks that answer nothing.
        """
        impls = self._impls.get(hook)
        if impls is None:
            return
        arguments["session"] = session
        is_measured, errors = hook in TOKEN_HOOKS, self.errors
        for name, function, gather, meter in impls:  # another list once one is switched off
            if errors and name in errors:  # while this hook was being called
                continue
            values = gather(arguments)
            if self._outboxes and (outbox := self._outboxes.get(name)):
                if not self._has_failed(name, outbox, session):
                    outbox.put((hook, function, values))
                continue
            started = perf_counter()
            try:
                answer = function(*values)
                if answer is not None:
                    _check_answer(hook, answer)
            except (Exception, SystemExit) as error:
                self.switch_off(name, hook, error, session)
                continue
            if is_measured:
                meter.last.append(perf_counter() - started)
                meter.calls += 1
                if not meter.calls % BUDGET_WINDOW:
                    self._check_budget(name, hook, meter, session)
            if answer is not None:
                yield name, answer

    def tell(self, hook: str, session: Session, /, **arguments: Any) -> None:
        """Call each implementation of a hook that states a fact."""
        for _ in self.call(hook, session, **arguments):
            pass

    def _check_budget(self, name: str, hook: str, meter: Meter, session: Session) -> None:
        """Call a plugin that takes too long behind a queue, or no more."""
        mean = sum(meter.last) / len(meter.last)
        if mean <= BUDGET_S:
            return
        took = (
            f"it took {1000 * mean:.1f} ms a call over {BUDGET_WINDOW} calls, "
            f"and its budget is {1000 * BUDGET_S:.0f} ms"
        )
        if self._answers(name):
            self.switch_off(name, hook, TimeoutError(took), session)
            return
        self._outboxes[name] = Outbox(_deliver)
        self._note_hearers()
        sys.stderr.write(
            f"emowatch: the plugin {clean_line(name)!r} is called behind a queue from here "
            f"on: {took}\n"
        )

    def _answers(self, name: str) -> bool:
        return any(name == impl[0] for hook in ANSWERED for impl in self._impls.get(hook, ()))

    def _has_failed(self, name: str, outbox: Outbox[Call], session: Session) -> bool:
        """Switch a plugin off that has failed behind its queue."""
        if outbox.failure is None:
            return False
        (hook, _, _), error = outbox.failure
        self.switch_off(name, hook, error, session)
        return True

    @property
    def counts(self) -> Mapping[str, Counts]:
        """What became of the calls of each plugin behind a queue."""
        return {name: outbox.counts for name, outbox in self._outboxes.items()}

    def flush(self, session: Session, deadline_s: float = DEADLINE_S) -> bool:
        """Wait for what is queued; return whether all of it was delivered in time."""
        until = monotonic() + deadline_s
        done = [outbox.flush(max(0.0, until - monotonic())) for outbox in self._outboxes.values()]
        for name, outbox in self._outboxes.items():
            if name not in self.errors:
                self._has_failed(name, outbox, session)
        return all(done)

    def finish(self, session: Session) -> None:
        """Queue nothing more; what waits is still delivered, at the interpreter's end at last."""
        for outbox in self._outboxes.values():
            outbox.finish()
        if self.on_error == "raise":
            self.flush(session)

    def switch_off(self, name: str, hook: str, error: BaseException, session: Session) -> None:
        """Call a plugin no more in this session, and say so once.

        Raises:
            PluginError: instead, under ``on_error="raise"``.
        """
        if self.on_error == "raise" and not isinstance(error, TimeoutError):
            raise PluginError(f"The plugin {name!r} failed in {hook}: {describe(error)}") from error
        if name in self.errors:  # one answer may hold several faults
            return
        self.errors[name] += 1
        for which, impls in list(self._impls.items()):
            left = [impl for impl in impls if impl[0] != name]
            if left:
                self._impls[which] = left
            else:
                del self._impls[which]
        self._note_hearers()
        sys.stderr.write(
            f"emowatch: the plugin {clean_line(name)!r} is off for this session: "
            f"it failed in {hook}: {describe(error)}\n"
        )
        self.tell("plugin_failed", session, name=name, hook=hook, error=error)


def _gathering(names: Sequence[str]) -> Gather:
    """Give what takes the arguments of these names, at every token and plugin."""
    if not names:
        return lambda _: ()
    if len(names) == 1:
        (name,) = names
        return lambda arguments: (arguments[name],)
    return itemgetter(*names)


def _deliver(call: Call) -> None:
    _, function, values = call
    function(*values)


def _check_alarm(alarm: Alarm) -> None:
    """Refuse an alarm whose values are not of their kind; loggers and the core rely on them."""
    places = (alarm.turn, alarm.sequence, *(() if alarm.offset is None else (alarm.offset,)))
    for holds, what in (
        (all(isinstance(text, str) for text in (alarm.rule, alarm.label, alarm.bank)), "names"),
        (all(isinstance(x, Real) for x in (alarm.score, alarm.threshold)), "scores"),
        (all(isinstance(place, Integral) for place in places), "places"),
        (alarm.level in get_args(Level), "level"),
        (isinstance(alarm.actions, tuple) and set(alarm.actions) <= set(ACTIONS), "actions"),
        (isinstance(alarm.system, str | None), "system"),
        (isinstance(alarm.steering, Steering | None), "steering"),
        (alarm.drift is None or _is_drift(alarm.drift), "drift"),
    ):
        if not holds:
            raise TypeError(f"its alarm has {what} of a wrong kind: {clean_line(repr(alarm), 200)}")


def _is_drift(drift: Any) -> bool:
    """Tell whether a drift has values of their kinds."""
    return (
        isinstance(drift, Drift)
        and drift.segment in SEGMENTS
        and drift.direction in ("up", "down")
        and isinstance(drift.chart, str)
        and all(isinstance(x, Real) for x in (drift.size, drift.p))
        and all(isinstance(x, Integral) for x in (drift.turn, drift.place, drift.tokens))
    )


def _check_answer(hook: str, answer: object) -> None:
    """Refuse an answer that the core could not use, while it is known whose it is."""
    if hook == "judge":
        for alarm in answer if isinstance(answer, Sequence) else (answer,):
            if not isinstance(alarm, Alarm):
                raise TypeError(
                    f"it must answer an Alarm, several or None, got {clean_line(repr(answer), 60)}"
                )
            _check_alarm(alarm)
    elif hook in ("steer", "steer_turn"):
        for wish in answer if isinstance(answer, Sequence) else (answer,):
            if not isinstance(wish, Steering):
                raise TypeError(
                    f"it must answer a Steering, several or None, got "
                    f"{clean_line(repr(answer), 60)}"
                )
