"""Find plugins, load them by name or refuse them, and report what is installed."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeAlias

import pluggy

from emowatch import hookspecs
from emowatch.errors import EmowatchError, PluginError
from emowatch.text import clean_line

PluginSpec: TypeAlias = str | tuple[str, Mapping[str, Any]] | object
"""A name, a name with options, a ``name:key=value,…`` string, or a plugin object."""

ANSWERED = ("judge", "steer_turn", "steer")
"""Hooks whose answer changes what happens, so that they cannot wait in a queue."""
DEFAULT_PLUGINS: Mapping[str, str] = {
    "drift-alarm": "emowatch.default_plugins.drift_alarm:DriftAlarm",
    "early-warning": "emowatch.default_plugins.early_warning:EarlyWarning",
    "governor": "emowatch.default_plugins.governor:Governor",
    "jsonl-log": "emowatch.default_plugins.jsonl_log:JsonlLog",
    "spike-alarm": "emowatch.default_plugins.spike_alarm:SpikeAlarm",
    "sqlite-log": "emowatch.default_plugins.sqlite_log:SqliteLog",
    "steer": "emowatch.default_plugins.steer:Steer",
    "threshold-alarm": "emowatch.default_plugins.threshold_alarm:ThresholdAlarm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReport:
    """One row of ``emowatch plugins``."""

    name: str
    source: str
    """``built-in``, or the distribution that brings it."""
    version: str
    target: str
    """Module and attribute that its entry point names."""
    status: Literal["not imported", "ok", "failed"]
    hooks: tuple[str, ...] = ()
    error: str = ""


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

    A comma that is followed by a space and no ``key=`` belongs to the value, as in a sentence.

    Raises:
        PluginError: if an option has no ``=``.
    """
    name, _, rest = text.partition(":")
    options = {}
    parts = re.split(r",(?=\S|\s*[\w-]+\s*=|\s*$)", rest)
    for part in filter(str.strip, parts):
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
        near = get_close_matches(name, installed, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PluginError(
            f"Could not load a plugin named {clean_line(name)!r}, because no installed package "
            f"provides one with that name. Installed plugins: {', '.join(sorted(installed))}.{hint}"
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
            f"Could not start the plugin {name!r}: {describe(error).rstrip('.')}. "
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
    unknown = [option for option in options if option not in parameters]
    if unknown:
        near = get_close_matches(unknown[0], parameters, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PluginError(
            f"Could not start the plugin {name!r}: it has no option "
            f"{', '.join(map(clean_line, unknown))}. Its options: "
            f"{', '.join(parameters) or 'none'}.{hint}"
        )
    needed = [
        option
        for option, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and option not in options
    ]
    if needed:
        raise PluginError(
            f"Could not start the plugin {name!r}: it needs {', '.join(needed)}, as in "
            f"{name}:{needed[0]}=…"
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
        _check_names(manager, plugin)
        manager.check_pending()
        callers = manager.get_hookcallers(plugin)
        if not callers:
            raise ValueError("it implements no hook; mark its hooks with @emowatch.hookimpl")
        for caller in callers:
            for impl in caller.get_hookimpls():
                if impl.plugin is plugin and not caller.name.startswith("register_"):
                    _check_plain(caller.name, impl)
                    _check_in_time(caller.name, plugin)
    except (pluggy.PluginValidationError, ValueError) as error:
        if manager.get_plugin(name) is plugin:
            manager.unregister(name=name)
        raise PluginError(
            f"Could not register the plugin {name!r}: {clean_line(str(error))}"
        ) from error


def _check_names(manager: pluggy.PluginManager, plugin: object) -> None:
    """Refuse hooks that there are not, with what was perhaps meant."""
    known = [name for name in vars(hookspecs) if manager.parse_hookspec_opts(hookspecs, name)]
    for caller in manager.get_hookcallers(plugin) or ():
        if caller.name not in known:
            near = get_close_matches(caller.name, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"there is no hook {caller.name!r}; the hooks are {', '.join(known)}.{hint}"
            )


def _check_plain(hook: str, impl: pluggy.HookImpl) -> None:
    """Refuse what a plain call would not run."""
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if impl.hookwrapper or impl.wrapper or any(is_kind(impl.function) for is_kind in kinds):
        raise ValueError(
            f"its {hook} is a wrapper, a generator or async, and the hooks of a session must be "
            "plain functions"
        )


def _check_in_time(hook: str, plugin: object) -> None:
    """Refuse a hook whose answer would come too late."""
    if hook in ANSWERED and getattr(plugin, "queued", False):
        raise ValueError(
            f"it is queued, and its {hook} would answer too late; leave queued out, or the hook"
        )
    if hook == "steer" and getattr(plugin, "can_wait", False):
        raise ValueError(
            "it can wait, and its steer would answer too late; leave can_wait out, or the hook"
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
            failures[name] = describe(error)
    return manager, failures


def collect(manager: pluggy.PluginManager, hook: str, **arguments: Any) -> dict[str, str]:
    """Call a ``register_*`` hook of each package on its own; failures by name, not raised."""
    failures: dict[str, str] = {}
    for impl in reversed(getattr(manager.hook, hook).get_hookimpls()):
        try:
            impl.function(*[arguments[name] for name in impl.argnames])
        except (Exception, SystemExit) as error:
            failures[impl.plugin_name] = describe(error)
    return failures


def report_plugins(*, importing: bool = False) -> list[PluginReport]:
    """List every installed plugin; where they are imported, also its hooks or why it fails."""
    reports = []
    for name, target in sorted(installed_plugins().items()):
        source, version = "built-in", ""
        if not isinstance(target, str) and target.dist is not None:
            source, version = target.dist.name, target.dist.version
        report = PluginReport(
            name=name,
            source=source,
            version=version,
            target=target if isinstance(target, str) else target.value,
            status="not imported",
        )
        reports.append(_imported(report, target) if importing else report)
    return reports


def _imported(report: PluginReport, target: str | EntryPoint) -> PluginReport:
    try:
        plugin = _import(target)
        manager = pluggy.PluginManager("emowatch")
        manager.add_hookspecs(hookspecs)
        _register(manager, report.name, plugin)
    except (Exception, SystemExit) as error:
        return replace(report, status="failed", error=describe(error))
    return replace(report, status="ok", hooks=implemented_hooks(plugin))


def implemented_hooks(plugin: object) -> tuple[str, ...]:
    """List the hooks that a plugin, or a class of plugins, implements, in the order of a run."""
    hooks = [name for name in vars(hookspecs) if hasattr(vars(hookspecs)[name], "emowatch_spec")]
    return tuple(h for h in hooks if hasattr(getattr(plugin, h, None), "emowatch_impl"))


def _import(target: str | EntryPoint) -> object:
    if isinstance(target, str):
        module, _, attribute = target.partition(":")
        loaded: object = getattr(importlib.import_module(module), attribute)
        return loaded
    return target.load()


def describe(error: BaseException) -> str:
    """Say on one clean line what went wrong in somebody else's code."""
    kind = type(error).__name__
    try:
        said = str(error)
    except (Exception, SystemExit):  # somebody's __str__ is somebody's code too
        said = ""
    if isinstance(error, ValueError | EmowatchError) and said.endswith("."):
        return clean_line(said)  # a sentence that was written for the user
    return clean_line(f"{kind}: {said}" if said else kind)
