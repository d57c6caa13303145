"""Find plugins, load them by name, and call them so that one cannot hurt another.

pluggy finds and checks implementations; the calling is done here, because pluggy stops at the
first exception and a monitor must not (pluggy #419).
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from time import perf_counter
from typing import Any, Literal, TypeAlias

import pluggy

from emowatch import hookspecs
from emowatch.errors import PluginError
from emowatch.records import Alarm, Session, Steering
from emowatch.text import clean_line

OnPluginError: TypeAlias = Literal["disable", "raise"]
PluginSpec: TypeAlias = str | tuple[str, Mapping[str, Any]] | object
"""A name, a name with options, a ``name:key=value,…`` string, or a plugin object."""

DEFAULT_PLUGINS: Mapping[str, str] = {
    "jsonl-log": "emowatch.default_plugins.jsonl_log:JsonlLog",
    "threshold-alarm": "emowatch.default_plugins.threshold_alarm:ThresholdAlarm",
}
TOKEN_HOOKS = ("token_scored", "judge", "alarm_raised", "steer", "steering_changed")
BUDGET_S = 0.005
"""Mean time per call that a plugin may take in the per-token hooks."""
BUDGET_WINDOW = 64
"""Calls over which the mean is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReport:
    """One row of ``emowatch plugins``."""

    name: str
    source: str
    """``built-in``, or the distribution that brings it."""
    version: str
    hooks: tuple[str, ...]
    status: Literal["ok", "failed"]
    error: str


@dataclass(slots=True)
class Meter:
    """How long a plugin takes per call, over its last 64 calls of a session."""

    last: deque[float]
    calls: int = 0

    def percentiles(self) -> tuple[float, float]:
        """Give the 50th and 99th percentile in seconds; zeros before the first call."""
        times = sorted(self.last) or [0.0]
        return times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]


def installed_plugins() -> dict[str, str | EntryPoint]:
    """List plugins by name without importing any of them.

    ``EMOWATCH_LOAD_PLUGINS`` limits what is found beside the built-in ones: a comma list of
    names, or nothing for none.
    """
    found: dict[str, str | EntryPoint] = dict(DEFAULT_PLUGINS)
    wanted = os.environ.get("EMOWATCH_LOAD_PLUGINS")
    names = None if wanted is None else {name.strip() for name in wanted.split(",")}
    for point in entry_points(group="emowatch"):
        if names is None or point.name in names:
            found.setdefault(point.name, point)
    return found


def parse_plugin(text: str) -> tuple[str, dict[str, str]]:
    """Split ``name:key=value,key=value`` into the name and its options.

    Raises:
        PluginError: if an option has no ``=``.
    """
    name, _, rest = text.partition(":")
    options = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise PluginError(
                f"Could not read the plugin option {clean_line(part)!r} of {clean_line(text)!r}: "
                "it must look like key=value, as in jsonl-log:path=trace.jsonl."
            )
        options[key.strip().replace("-", "_")] = value.strip()
    return name.strip(), options


def load_plugin(spec: PluginSpec) -> tuple[str, object]:
    """Turn a spec into a name and a plugin object.

    Raises:
        PluginError: if no installed plugin has that name, it does not import or start, or a
            class was given where an object is needed.
    """
    if isinstance(spec, str):
        name, options = parse_plugin(spec)
    elif isinstance(spec, tuple):
        name, options = spec[0], dict(spec[1])
    elif isinstance(spec, type):
        raise PluginError(
            f"Could not use the class {spec.__name__} as a plugin: pass an object of it, "
            f"{spec.__name__}(…)."
        )
    else:
        named = getattr(spec, "name", None) or getattr(spec, "__name__", None)
        return str(named or type(spec).__name__), spec
    target = DEFAULT_PLUGINS.get(name) or (installed := installed_plugins()).get(name)
    if target is None:
        raise PluginError(
            f"Could not load a plugin named {clean_line(name)!r}, because no installed package "
            f"provides one with that name. Installed plugins: {', '.join(sorted(installed))}."
        )
    try:
        made = _import(target)
        if isinstance(made, type):
            _check_options(name, made, options)
            return name, made(**options)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"Could not start the plugin {name!r}: {_describe(error).rstrip('.')}. "
            "Check its options, or leave it out."
        ) from error
    if options:
        raise PluginError(f"The plugin {name!r} takes no options, got {', '.join(options)}.")
    return name, made


def _check_options(name: str, made: type, options: Mapping[str, Any]) -> None:
    """Refuse an option that the plugin does not have, and list those it has."""
    try:
        parameters = inspect.signature(made).parameters
    except (TypeError, ValueError):  # a class that does not tell
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = [clean_line(option) for option in options if option not in parameters]
    if unknown:
        raise PluginError(
            f"Could not start the plugin {name!r}: it has no option {', '.join(unknown)}. "
            f"Its options: {', '.join(parameters) or 'none'}."
        )


def make_plugin_manager(specs: Sequence[PluginSpec] = ()) -> pluggy.PluginManager:
    """Make a fresh plugin manager with the plugins asked for, in that order.

    A name that was asked for before gets a number, as in ``threshold-alarm-2``.

    Raises:
        PluginError: if one does not load, implements no hook, has a misspelt hook or argument,
            or wraps a hook of a session.
    """
    manager = pluggy.PluginManager("emowatch")
    manager.add_hookspecs(hookspecs)
    loaded: dict[str, object] = {}
    for spec in specs:
        name, plugin = load_plugin(spec)
        free, number = name, 1
        while free in loaded:
            number += 1
            free = f"{name}-{number}"
        loaded[free] = plugin
    for name, plugin in reversed(loaded.items()):  # pluggy calls the last registered first
        _register(manager, name, plugin)
    return manager


def _register(manager: pluggy.PluginManager, name: str, plugin: object) -> None:
    """Register a plugin, or refuse it with the reason and leave no trace of it."""
    try:
        manager.register(plugin, name)
        manager.check_pending()
        callers = manager.get_hookcallers(plugin)
        if not callers:
            raise ValueError("it implements no hook; mark its hooks with @emowatch.hookimpl")
        for caller in callers:
            for impl in caller.get_hookimpls():
                if impl.plugin is plugin and not caller.name.startswith("register_"):
                    _check_plain(caller.name, impl)
    except (pluggy.PluginValidationError, ValueError) as error:
        if manager.get_plugin(name) is plugin:
            manager.unregister(name=name)
        raise PluginError(
            f"Could not register the plugin {name!r}: {clean_line(str(error))}"
        ) from error


def _check_plain(hook: str, impl: pluggy.HookImpl) -> None:
    """Refuse what a plain call would not run."""
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if impl.hookwrapper or impl.wrapper or any(is_kind(impl.function) for is_kind in kinds):
        raise ValueError(
            f"its {hook} is a wrapper, a generator or async, and the hooks of a session must be "
            "plain functions"
        )


def installed_plugin_manager() -> tuple[pluggy.PluginManager, dict[str, str]]:
    """Register the hooks of every installed plugin that is a module; failures by name.

    Classes are left out: they are made into plugins only when asked for by name.

    Used for `register_commands` and `register_probes`, where a broken package must not take
    the command line with it.
    """
    manager = pluggy.PluginManager("emowatch")
    manager.add_hookspecs(hookspecs)
    failures: dict[str, str] = {}
    for name, target in installed_plugins().items():
        if isinstance(target, str):
            continue
        try:
            plugin = _import(target)
            if not isinstance(plugin, type):
                _register(manager, name, plugin)
        except (Exception, SystemExit) as error:
            failures[name] = _describe(error)
    return manager, failures


def collect(manager: pluggy.PluginManager, hook: str, **arguments: Any) -> dict[str, str]:
    """Call a ``register_*`` hook of each package on its own; failures by name, not raised."""
    failures: dict[str, str] = {}
    for impl in reversed(getattr(manager.hook, hook).get_hookimpls()):
        try:
            impl.function(*[arguments[name] for name in impl.argnames])
        except (Exception, SystemExit) as error:
            failures[impl.plugin_name] = _describe(error)
    return failures


def report_plugins() -> list[PluginReport]:
    """Import every installed plugin and say what it implements or why it fails."""
    hooks = [name for name in vars(hookspecs) if hasattr(vars(hookspecs)[name], "emowatch_spec")]
    reports = []
    for name, target in sorted(installed_plugins().items()):
        source, version = "built-in", ""
        if not isinstance(target, str) and target.dist is not None:
            source, version = target.dist.name, target.dist.version
        error = ""
        implemented: tuple[str, ...] = ()
        try:
            plugin = _import(target)
            manager = pluggy.PluginManager("emowatch")
            manager.add_hookspecs(hookspecs)
            _register(manager, name, plugin)
            implemented = tuple(
                hook for hook in hooks if hasattr(getattr(plugin, hook, None), "emowatch_impl")
            )
        except (Exception, SystemExit) as caught:
            error = _describe(caught)
        reports.append(
            PluginReport(
                name=name,
                source=source,
                version=version,
                hooks=implemented,
                status="failed" if error else "ok",
                error=error,
            )
        )
    return reports


class Dispatcher:
    """Call the plugins of one session, each on its own.

    A plugin that raises, or takes longer than its budget, is off for the rest of the session:
    one line on stderr, a counter, and `plugin_failed` for the others.
    """

    def __init__(
        self, manager: pluggy.PluginManager, *, on_error: OnPluginError = "disable"
    ) -> None:
        """Take the plugins registered with `manager`, in pluggy's order."""
        self.on_error = on_error
        self.errors: Counter[str] = Counter()
        self.meters: dict[str, Meter] = {}
        self._impls = {
            hook: [(i.plugin_name, i.function, i.argnames) for i in reversed(impls)]
            for hook in vars(manager.hook)
            if not hook.startswith("_") and (impls := getattr(manager.hook, hook).get_hookimpls())
        }

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
        arguments["session"] = session
        for name, function, argnames in tuple(self._impls.get(hook, ())):
            if name in self.errors:  # switched off while this hook was being called
                continue
            started = perf_counter()
            try:
                answer = function(*[arguments[argument] for argument in argnames])
                if answer is not None:
                    _check_answer(hook, answer)
            except (Exception, SystemExit) as error:
                self.switch_off(name, hook, error, session)
                continue
            if hook in TOKEN_HOOKS:
                self._measure(name, hook, perf_counter() - started, session)
            if answer is not None:
                yield name, answer

    def tell(self, hook: str, session: Session, /, **arguments: Any) -> None:
        """Call each implementation of a hook that states a fact."""
        if hook in self._impls:
            for _ in self.call(hook, session, **arguments):
                pass

    def _measure(self, name: str, hook: str, elapsed_s: float, session: Session) -> None:
        meter = self.meters.get(name)
        if meter is None:
            meter = self.meters[name] = Meter(deque(maxlen=BUDGET_WINDOW))
        meter.last.append(elapsed_s)
        meter.calls += 1
        if meter.calls % BUDGET_WINDOW == 0:
            mean = sum(meter.last) / len(meter.last)
            if mean > BUDGET_S:
                slow = TimeoutError(
                    f"it took {1000 * mean:.1f} ms a call over {BUDGET_WINDOW} calls, "
                    f"and its budget is {1000 * BUDGET_S:.0f} ms"
                )
                self.switch_off(name, hook, slow, session)

    def switch_off(self, name: str, hook: str, error: BaseException, session: Session) -> None:
        """Call a plugin no more in this session, and say so once.

        Raises:
            PluginError: instead, under ``on_error="raise"``.
        """
        if self.on_error == "raise" and not isinstance(error, TimeoutError):
            raise PluginError(
                f"The plugin {name!r} failed in {hook}: {_describe(error)}"
            ) from error
        self.errors[name] += 1
        for which, impls in list(self._impls.items()):
            left = [impl for impl in impls if impl[0] != name]
            if left:
                self._impls[which] = left
            else:
                del self._impls[which]
        sys.stderr.write(
            f"emowatch: the plugin {clean_line(name)!r} is off for this session: "
            f"it failed in {hook}: {_describe(error)}\n"
        )
        self.tell("plugin_failed", session, name=name, hook=hook, error=error)


def _import(target: str | EntryPoint) -> object:
    if isinstance(target, str):
        module, _, attribute = target.partition(":")
        loaded: object = getattr(importlib.import_module(module), attribute)
        return loaded
    return target.load()


def _check_answer(hook: str, answer: object) -> None:
    """Refuse an answer that the core could not use, while it is known whose it is."""
    if hook == "judge":
        alarms = answer if isinstance(answer, Sequence) else (answer,)
        if not all(isinstance(alarm, Alarm) for alarm in alarms):
            raise TypeError(
                f"it must answer an Alarm, several or None, got {clean_line(repr(answer), 60)}"
            )
    elif hook == "steer" and not isinstance(answer, Steering):
        raise TypeError(f"it must answer a Steering or None, got {clean_line(repr(answer), 60)}")


def _describe(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        said = str(error)
    except (Exception, SystemExit):  # somebody's __str__ is somebody's code too
        said = ""
    if isinstance(error, ValueError) and said.endswith("."):
        return clean_line(said)  # a sentence that was written for the user
    return clean_line(f"{kind}: {said}" if said else kind)
