"""Settings files as defaults of the command line: flag > environment > project > user > default."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import click

from emowatch.config import SettingsFile, read_settings
from emowatch.errors import ConfigError
from emowatch.plugins import installed_plugins
from emowatch.text import clean_line

PLUGINS = "plugins"
"""The table of plugins' options, by name."""
_META = "emowatch.plugin_options"
FLAG_ONLY = ("trust-remote-code", "overwrite")
"""Options that no file and no variable may set: they permit what cannot be undone."""
_Defaults = dict[str, dict[str, Any]]


def apply_settings(
    context: click.Context, commands: Callable[[], Mapping[str, click.Command]]
) -> None:
    """Make what the files say the defaults of every command below `context`.

    Raises:
        ConfigError: for a key that no command has, or a value that its option refuses; it names
            the file.
    """
    files = read_settings()
    if not files:
        return
    named = {name: dict(_names(command)) for name, command in commands().items()}
    defaults: _Defaults = defaultdict(dict)
    options: dict[str, dict[str, Any]] = {}
    for file in files:
        for key, value in file.table.items():
            if key == PLUGINS:
                _take_plugins(file, value, options)
            elif key in named and isinstance(value, dict):
                for inner, of_command in value.items():
                    _take(file, inner, of_command, {key: named[key]}, defaults, f"{key}.")
            else:
                _take(file, key, value, named, defaults, "")
    context.default_map = dict(defaults)
    context.meta[_META] = options
    _tell(files)


def plugin_options(name: str) -> Mapping[str, Any]:
    """Give the options that the settings files name for a plugin."""
    context = click.get_current_context(silent=True)
    options: Mapping[str, Mapping[str, Any]] = (
        {} if context is None else context.meta.get(_META, {})
    )
    return options.get(name, {})


def _names(command: click.Command) -> Iterator[tuple[str, click.Parameter]]:
    """Name what a file may set: options by their long flag, arguments that may be left out."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for flag in parameter.opts:
                if flag.startswith("--"):
                    yield flag.removeprefix("--"), parameter
        elif not parameter.required and parameter.name:
            yield parameter.name, parameter


def _take(
    file: SettingsFile,
    key: str,
    value: Any,
    named: Mapping[str, Mapping[str, click.Parameter]],
    defaults: _Defaults,
    inside: str,
) -> None:
    """Set one key for each of the commands that have it."""
    whole = f"{inside}{key}"
    if key in FLAG_ONLY:
        raise _refusal(file, whole, f"it is set on the command line alone: pass --{key} there")
    owners = [command for command, parameters in named.items() if key in parameters]
    if not owners:
        tables = [PLUGINS, *named] if isinstance(value, dict) else []
        known = tables or sorted({n for of in named.values() for n in of if n not in FLAG_ONLY})
        raise _unknown(file, whole, key, known)
    for command in owners:
        parameter = named[command][key]
        assert parameter.name is not None
        defaults[command][parameter.name] = _value(file, whole, parameter, value)


def _value(file: SettingsFile, key: str, parameter: click.Parameter, value: Any) -> Any:
    """Check a value as the option would, and give it as the command line would."""
    many = isinstance(parameter, click.Option) and parameter.multiple
    single = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not many:
        raise _refusal(file, key, "it is one value, and not a list")
    is_flag = isinstance(parameter, click.Option) and parameter.is_flag
    if is_flag:
        if not isinstance(value, bool):
            raise _refusal(file, key, f"it is true or false, got {clean_line(repr(value), 60)}")
        return value
    if any(isinstance(one, bool | dict | list) or not str(one) for one in single):
        raise _refusal(file, key, f"it cannot be {clean_line(repr(value), 60)}")
    texts = [file.placed(str(one)) for one in single]
    try:
        for text in texts:
            parameter.type.convert(text, parameter, None)
    except click.BadParameter as error:
        raise _refusal(file, key, clean_line(error.message).rstrip(".")) from error
    return texts if many else texts[0]


def _take_plugins(file: SettingsFile, table: Any, options: dict[str, dict[str, Any]]) -> None:
    if not isinstance(table, dict):
        raise _refusal(file, PLUGINS, "it is a table for each plugin, as in [plugins.jsonl-log]")
    installed = installed_plugins()
    for name, chosen in table.items():
        key = f"{PLUGINS}.{name}"
        if name not in installed:
            raise _unknown(file, key, name, sorted(installed))
        if not isinstance(chosen, dict):
            raise _refusal(
                file, key, f"it is a table of options, got {clean_line(repr(chosen), 60)}"
            )
        placed = {
            option.replace("-", "_"): file.placed(value) if isinstance(value, str) else value
            for option, value in chosen.items()
        }
        options[name] = options.get(name, {}) | placed


def _tell(files: list[SettingsFile]) -> None:
    """Say where plugins come from that a folder brings: they hear what is said."""
    for file in files:
        tables = [file.table, *(v for v in file.table.values() if isinstance(v, dict))]
        if file.is_project and any("plugin" in table for table in tables):
            sys.stderr.write(f"emowatch: plugins as set in {clean_line(str(file.path))}\n")


def _refusal(file: SettingsFile, key: str, why: str) -> ConfigError:
    return ConfigError(
        f"Could not use {clean_line(key)!r} in {clean_line(str(file.path))!r}: {why}."
    )


def _unknown(file: SettingsFile, whole: str, key: str, known: list[str]) -> ConfigError:
    near = get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}."
    return ConfigError(
        f"Could not use {clean_line(whole)!r} in {clean_line(str(file.path))!r}: nothing goes by "
        f"that name; {clean_line(hint)}"
    )
