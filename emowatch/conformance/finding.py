"""Find a plugin that need not be installed: by name, in a file, or in a distribution's folder."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from emowatch.errors import PluginError
from emowatch.plugins import describe, implemented_hooks, installed_plugins, load_plugin
from emowatch.text import clean_line

GROUP = "emowatch"


def find_plugin(source: str, options: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """Give a maker for each plugin that `source` names; each call makes one anew.

    Args:
        source: the name of an installed plugin, ``FILE.py``, ``FILE.py:Class``, or the folder of
            a distribution, whose ``pyproject.toml`` announces its plugins.
        options: what classes are called with.

    Raises:
        PluginError: if there is no such thing, it does not import, or holds no plugin.
    """
    path, _, attribute = source.partition(":")
    if Path(path).is_dir():
        return _of_folder(Path(path), options)
    if path.endswith(".py"):
        if not Path(path).is_file():
            raise PluginError(f"Could not find a plugin in {clean_line(path)!r}: no such file.")
        return _of_module(_import_file(Path(path)), attribute, options, path)
    if source not in installed_plugins():
        load_plugin(source)  # says what is installed
    return {source: lambda: load_plugin((source, dict(options)))[1]}


def _of_folder(folder: Path, options: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """Read what a distribution's ``pyproject.toml`` announces, and import it from there."""
    shown = clean_line(str(folder))
    try:
        with (folder / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file)["project"]
        points: dict[str, str] = project["entry-points"][GROUP]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PluginError(
            f"Could not find a plugin in {shown!r}: it holds no pyproject.toml with a table "
            f"[project.entry-points.{GROUP}] ({describe(error)})."
        ) from error
    made: dict[str, Callable[[], object]] = {}
    places = [str(place.resolve()) for place in (folder, folder / "src") if place.is_dir()]
    sys.path[:0] = places
    try:
        for name, target in points.items():
            module, _, attribute = target.partition(":")
            try:
                loaded = importlib.import_module(module)
            except (Exception, SystemExit) as error:
                raise PluginError(
                    f"Could not import the plugin {clean_line(name)!r} of {shown!r}: "
                    f"{describe(error)}."
                ) from error
            found = _of_module(loaded, attribute, options, target)
            made[name] = next(iter(found.values()))
    finally:
        for place in places:
            sys.path.remove(place)
    if not made:
        raise PluginError(f"Could not find a plugin in {shown!r}: its entry points are empty.")
    return made


def _import_file(path: Path) -> ModuleType:
    name = f"emowatch_checked_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(
            f"Could not import {clean_line(str(path))!r}: {describe(error)}."
        ) from error
    return module


def _of_module(
    module: ModuleType, attribute: str, options: Mapping[str, Any], source: str
) -> dict[str, Callable[[], object]]:
    """Give what a module is, has under a name, or has once."""
    shown = clean_line(source)
    if attribute:
        if not hasattr(module, attribute):
            raise PluginError(f"Could not find a plugin in {shown!r}: it has no {attribute!r}.")
        one = getattr(module, attribute)
        return {attribute: _maker(one, options)}
    if implemented_hooks(module):
        return {module.__name__: _maker(module, options)}
    classes = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__ and implemented_hooks(kind)
    ]
    if not classes:
        raise PluginError(
            f"Could not find a plugin in {shown!r}: nothing there has a function marked with "
            "@emowatch.hookimpl."
        )
    return {kind.__name__: _maker(kind, options) for kind in classes}


def _maker(one: Any, options: Mapping[str, Any]) -> Callable[[], object]:
    if isinstance(one, type):
        return lambda: one(**options)
    return lambda: one
