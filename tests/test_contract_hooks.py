"""Hold the hook contract: every hook is documented, tested, and the guide's example runs."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from emowatch import hookspecs
from emowatch.dispatch import BUDGET_S, BUDGET_WINDOW, TOKEN_HOOKS, Dispatcher
from emowatch.errors import PluginError
from emowatch.plugins import DEFAULT_PLUGINS, make_plugin_manager, report_plugins
from emowatch.records import Alarm
from tests.conftest import Site, make_score, make_session, make_turn

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
HOOKS: dict[str, Callable[..., object]] = {
    name: value for name, value in vars(hookspecs).items() if hasattr(value, "emowatch_spec")
}
SESSION = make_session()


def signature(hook: str) -> str:
    """Write a hook as it is called."""
    return f"{hook}({', '.join(inspect.signature(HOOKS[hook]).parameters)})"


def block(language: str, containing: str) -> str:
    """Give the guide's code block that holds a piece of text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    (found,) = [code for code in blocks if containing in code]
    return str(found)


@cache
def names_of_tests() -> set[str]:
    """List every test function below ``tests/``."""
    return {
        node.name
        for file in ROOT.glob("tests/**/test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


# Documented and tested


@pytest.mark.parametrize("hook", HOOKS)
def test_the_guide_has_a_row_for_each_hook_as_it_is_called(hook: str) -> None:
    """A hook that is not in the guide does not exist for those who write plugins."""
    assert f"\n| `{signature(hook)}` |" in GUIDE


def test_the_guide_names_no_hook_that_is_not_there_and_keeps_their_order() -> None:
    """A renamed hook must not live on in the guide."""
    assert re.findall(r"\n\| `(\w+\([\w, ]*\))` \|", GUIDE) == [signature(hook) for hook in HOOKS]


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_has_a_test_of_its_own(hook: str) -> None:
    """A hook that nothing calls breaks in silence."""
    longer = [other for other in HOOKS if other.startswith(hook) and other != hook]
    mine = [
        name
        for name in names_of_tests()
        if re.match(rf"test_hook_{hook}(_|$)", name)
        and not any(name.startswith(f"test_hook_{other}") for other in longer)
    ]
    assert mine, f"write a test named test_hook_{hook}_…"


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_explains_every_argument(hook: str) -> None:
    """The specification is what an editor shows."""
    text = inspect.getdoc(HOOKS[hook]) or ""
    for argument in inspect.signature(HOOKS[hook]).parameters:
        assert f":param {argument}:" in text


def test_hooks_of_every_token_are_hooks() -> None:
    """The list is strings, and its names are in the guide."""
    assert set(TOKEN_HOOKS) <= set(HOOKS)
    budget = f"{1000 * BUDGET_S:.0f} ms a call on average over {BUDGET_WINDOW} calls"
    assert budget in " ".join(GUIDE.split())


@pytest.mark.parametrize("name", DEFAULT_PLUGINS)
def test_the_guide_lists_the_options_of_each_built_in_plugin(name: str) -> None:
    """An option that nobody can read of is one that nobody uses."""
    module, _, attribute = DEFAULT_PLUGINS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    (row,) = re.findall(rf"\n\| `{name}` \|.*", GUIDE)
    for option in inspect.signature(kind).parameters.values():
        assert f"`{option.name}` (" in row
        if isinstance(option.default, int | float):
            assert f"`{option.name}` ({option.default})" in row
        elif isinstance(option.default, str):
            assert f"`{option.name}` (`{option.default}`" in row


# The example


@pytest.fixture
def example(site: Site) -> str:
    """Install the guide's example as its own pyproject.toml says, and give its name."""
    project = tomllib.loads(block("toml", "leap-alarm"))
    ((name, target),) = project["project"]["entry-points"]["emowatch"].items()
    module, _, attribute = target.partition(":")
    assert project["project"]["name"] == f"emowatch-{name}"
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == [f"{module}.py"]
    assert f"`{module}.py`" in GUIDE
    site.install(name, block("python", "class LeapAlarm"), attribute=attribute)
    return str(name)


def test_the_example_is_found_and_implements_what_it_says(example: str) -> None:
    """Newcomers copy it."""
    (report,) = [report for report in report_plugins(importing=True) if report.name == example]
    assert (report.status, report.hooks) == ("ok", ("judge", "turn_finished"))


def test_the_example_raises_its_alarm_through_the_dispatcher(example: str) -> None:
    """It runs as it stands in the guide, with an option from the command line."""
    plugins = Dispatcher(make_plugin_manager([f"{example}:rise=0.4"]), on_error="raise")
    raised: list[Alarm] = []
    for offset, joy in enumerate([None, 0.1, 0.2, 0.7, 0.8]):
        score = make_score(
            [1 - (joy or 0.9), joy or 0.9], offset=None if joy is None else offset - 1
        )
        for _, alarms in plugins.call("judge", SESSION, score=score):
            raised += alarms
    plugins.tell("turn_finished", SESSION, turn=make_turn())
    for _, alarms in plugins.call("judge", SESSION, score=make_score([0.9, 0.1], offset=0)):
        raised += alarms
    assert [(alarm.label, alarm.offset) for alarm in raised] == [("joy", 2)]
    assert raised[0].rule == "joy rose by 0.50 in one token"


def test_the_example_refuses_a_rise_that_cannot_be(example: str) -> None:
    """It shows how to refuse, too."""
    with pytest.raises(PluginError, match="must be above 0 and at most 1, got '3'"):
        make_plugin_manager([f"{example}:rise=3"])
