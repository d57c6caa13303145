"""Plugins: how they are named, found and refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emowatch import hookimpl
from emowatch.dispatch import Dispatcher, OnPluginError
from emowatch.errors import PluginError
from emowatch.plugins import (
    DEFAULT_PLUGINS,
    PluginSpec,
    installed_plugin_manager,
    installed_plugins,
    load_plugin,
    make_plugin_manager,
    parse_plugin,
    report_plugins,
)
from emowatch.records import Alarm, TokenScore
from tests.conftest import ALARM, Site, make_session

SESSION = make_session()
CALM = """
from emowatch import hookimpl

@hookimpl
def session_started(session):
    pass
"""


class Observer:
    """Listens, under a name of its own."""

    def __init__(self, name: str) -> None:
        """Take the name."""
        self.name = name

    @hookimpl
    def token_scored(self) -> None:
        """Do nothing."""


class Judge:
    """Raises an alarm at each token."""

    @hookimpl
    def judge(self) -> Alarm:
        """Judge."""
        return ALARM


def dispatch(*plugins: PluginSpec, on_error: OnPluginError = "disable") -> Dispatcher:
    """Make a dispatcher for these plugins."""
    return Dispatcher(make_plugin_manager(plugins), on_error=on_error)


# Naming a plugin


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("jsonl-log", "jsonl-log", {}),
        ("jsonl-log:", "jsonl-log", {}),
        ("jsonl-log:path=a.jsonl", "jsonl-log", {"path": "a.jsonl"}),
        ("jsonl-log:path=C:\\t.jsonl", "jsonl-log", {"path": "C:\\t.jsonl"}),
        ("webhook:url=http://h/?a=b", "webhook", {"url": "http://h/?a=b"}),
        (" a : max-rate = 3 , b = ", "a", {"max_rate": "3", "b": ""}),
        (
            "drift-alarm:system=You stay calm, always., level=watch,",
            "drift-alarm",
            {"system": "You stay calm, always.", "level": "watch"},
        ),
        ("a:x=1,,y=2, ", "a", {"x": "1", "y": "2"}),
    ],
)
def test_a_spec_is_a_name_and_options(text: str, name: str, options: Mapping[str, str]) -> None:
    """Paths and addresses hold colons and equals signs themselves."""
    assert parse_plugin(text) == (name, options)


def test_an_option_without_a_value_is_refused_with_an_example() -> None:
    """`jsonl-log:trace.jsonl` is what everybody types first."""
    with pytest.raises(PluginError, match=r"'trace\.jsonl'.*key=value.*path=trace\.jsonl"):
        parse_plugin("jsonl-log:trace.jsonl")
    with pytest.raises(PluginError, match="'full'"):
        parse_plugin("jsonl-log:path=trace.jsonl,full")


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    """The command line hands on whatever was typed."""
    try:
        name, options = parse_plugin(text)
    except PluginError:
        return
    assert name == name.strip() and all(isinstance(key, str) for key in options)


def test_an_unknown_name_is_answered_with_those_installed() -> None:
    """Whoever asked for a plugin must not run without it unknowing."""
    with pytest.raises(PluginError, match=r"'json-log'.*Installed plugins: .*jsonl-log"):
        make_plugin_manager(["json-log"])


def test_options_reach_the_plugin_from_a_string_and_from_a_pair() -> None:
    """The command line has strings, Python has values."""
    _, from_string = load_plugin("threshold-alarm:threshold=0.5,label=joy")
    _, from_pair = load_plugin(("threshold-alarm", {"threshold": 0.5, "label": "joy"}))
    assert [getattr(made, "threshold", None) for made in (from_string, from_pair)] == [0.5, 0.5]


def test_a_plugin_that_refuses_its_options_is_named() -> None:
    """The constructor's sentence alone would not say whose it is."""
    with pytest.raises(PluginError, match=r"start the plugin 'threshold-alarm'.*threshold"):
        load_plugin("threshold-alarm:threshold=high")


def test_an_option_that_a_plugin_does_not_have_is_named_beside_those_it_has() -> None:
    """Python's own words would speak of __init__() and keyword arguments."""
    wanted = r"'threshold-alarm'.*no option treshold\. Its options: label, threshold, "
    with pytest.raises(PluginError, match=wanted):
        load_plugin("threshold-alarm:treshold=0.5")


def test_a_plugins_own_sentence_is_shown_as_it_is() -> None:
    """A ValueError with a full sentence was written for the user."""

    class Fussy:
        @hookimpl
        def session_started(self) -> None:
            raise ValueError("The log needs a disk. Plug one in.")

    with pytest.raises(PluginError, match=r"_started: The log needs a disk\. Plug one in\.$"):
        dispatch(Fussy(), on_error="raise").tell("session_started", SESSION)


def test_options_for_a_plugin_that_takes_none_are_refused(site: Site) -> None:
    """A module has nowhere to put them."""
    site.install("calm", CALM)
    with pytest.raises(PluginError, match="'calm' takes no options, got depth"):
        load_plugin("calm:depth=3")


def test_a_module_and_an_object_go_by_their_own_names() -> None:
    """Failures are reported under that name."""
    module = ModuleType("calm")
    assert load_plugin(module) == ("calm", module)
    observer = Observer("mine")
    assert load_plugin(observer) == ("mine", observer)
    judge = Judge()
    assert load_plugin(judge) == ("Judge", judge)


def test_a_class_in_place_of_an_object_is_refused() -> None:
    """Its hooks would be called without an object and fail at the first token."""
    with pytest.raises(PluginError, match=r"class Judge.*Judge\(…\)"):
        make_plugin_manager([Judge])


def test_the_same_plugin_may_be_asked_for_twice() -> None:
    """Two alarms with two labels are two plugins; each has its own name."""
    manager = make_plugin_manager(["threshold-alarm:label=joy", "threshold-alarm:label=anger"])
    assert sorted(name for name, _ in manager.list_name_plugin()) == [
        "threshold-alarm",
        "threshold-alarm-2",
    ]


# What is refused


def test_a_misspelt_hook_is_refused() -> None:
    """It would never be called, and nobody would be told."""

    class Misspelt:
        @hookimpl
        def token_scord(self, score: TokenScore) -> None: ...

    wanted = r"'Misspelt'.*no hook 'token_scord'; .*judge.*Did you mean 'token_scored'\?"
    with pytest.raises(PluginError, match=wanted):
        make_plugin_manager([Misspelt()])


def test_a_misspelt_argument_is_refused() -> None:
    """It would fail at the first token, minutes after the start."""

    class Misspelt:
        @hookimpl
        def token_scored(self, scores: TokenScore) -> None: ...

    with pytest.raises(PluginError, match=r"'Misspelt'.*token_scored.*scores"):
        make_plugin_manager([Misspelt()])


def test_a_plugin_without_hooks_is_refused() -> None:
    """Most often somebody forgot to mark them."""

    class Forgetful:
        def token_scored(self, score: TokenScore) -> None: ...

    with pytest.raises(PluginError, match=r"'Forgetful'.*implements no hook.*hookimpl"):
        make_plugin_manager([Forgetful()])


@pytest.mark.parametrize("hook", ["token_scored", "judge", "alarm_raised", "steer"])
@pytest.mark.parametrize("kind", ["wrapper", "hookwrapper"])
def test_a_wrapper_of_a_hook_of_every_token_is_refused(hook: str, kind: str) -> None:
    """A wrapper could change what others answer, and hold up every token."""

    def wrap() -> Any:
        return (yield)

    plugin = ModuleType("wrapping")
    mark = hookimpl(wrapper=kind == "wrapper", hookwrapper=kind == "hookwrapper")
    setattr(plugin, hook, mark(wrap))
    with pytest.raises(PluginError, match=f"'wrapping'.*its {hook} is a wrapper"):
        make_plugin_manager([plugin])


def test_what_a_plain_call_would_not_run_is_refused() -> None:
    """Calling an async function or a generator does nothing at all."""

    class Async:
        @hookimpl
        async def turn_finished(self) -> None: ...

    class Yielding:
        @hookimpl
        def judge(self) -> Any:
            yield ALARM

    for plugin, hook in ((Async(), "turn_finished"), (Yielding(), "judge")):
        with pytest.raises(PluginError, match=f"its {hook} is"):
            make_plugin_manager([plugin])


# Installed plugins


def test_the_built_in_plugins_load_and_announce_themselves() -> None:
    """The table is a list of strings, which no linter follows."""
    for report in report_plugins(importing=True):
        assert (report.status, report.source, report.error) == ("ok", "built-in", "")
        assert report.hooks
    assert list(DEFAULT_PLUGINS) == sorted(DEFAULT_PLUGINS)


def test_an_installed_distribution_is_found_without_being_imported(site: Site) -> None:
    """`emowatch plugins` and `--help` must not pay for what others import."""
    site.install("calm", "raise SystemExit('imported')")
    assert "calm" in installed_plugins()
    (report,) = [report for report in report_plugins() if report.name == "calm"]
    assert (report.source, report.target) == ("emowatch-calm", "emowatch_calm")
    assert (report.status, report.hooks, report.error) == ("not imported", (), "")


def test_an_installed_plugin_is_loaded_by_name(site: Site) -> None:
    """This is the whole way from pip to a running hook."""
    site.install("calm", CALM, version="2.1")
    dispatcher = dispatch("calm")
    assert dispatcher.has("session_started")
    (report,) = [report for report in report_plugins(importing=True) if report.name == "calm"]
    assert (report.source, report.version) == ("emowatch-calm", "2.1")
    assert (report.status, report.hooks) == ("ok", ("session_started",))


@pytest.mark.parametrize(
    ("code", "attribute", "complaint"),
    [
        ("import a_module_that_is_not_there", "", "ModuleNotFoundError"),
        ("raise SystemExit(2)", "", "SystemExit"),
        (CALM, "Missing", "Missing"),
        (CALM.replace("session_started", "session_begun"), "", "session_begun"),
        (CALM.replace("(session)", "(sesion)"), "", "sesion"),
        ("", "", "implements no hook"),
    ],
    ids=["import", "exit", "attribute", "hook", "argument", "empty"],
)
def test_a_broken_distribution_is_reported_and_hurts_no_other(
    site: Site, code: str, attribute: str, complaint: str
) -> None:
    """Packages break when others are upgraded; the command line must still start."""
    site.install("a-broken", code, attribute=attribute)
    site.install("calm", CALM)
    reports = {report.name: report for report in report_plugins(importing=True)}
    assert reports["a-broken"].status == "failed" and complaint in reports["a-broken"].error
    assert reports["calm"].status == "ok"
    manager, failures = installed_plugin_manager()
    assert set(failures) == {"a-broken"}
    assert [name for name, _ in manager.list_name_plugin()] == ["calm"]
    with pytest.raises(PluginError, match="'a-broken'"):
        make_plugin_manager(["a-broken"])


def test_a_class_is_left_alone_until_it_is_asked_for(site: Site) -> None:
    """Without an object its commands could not be called."""
    code = "from emowatch import hookimpl\nclass P:\n    @hookimpl\n    def judge(self): ...\n"
    site.install("classy", code, attribute="P")
    manager, failures = installed_plugin_manager()
    assert not failures and not manager.list_name_plugin()
    assert dispatch("classy").has("judge")


def test_no_distribution_can_take_the_name_of_a_built_in_plugin(site: Site) -> None:
    """A log that is somebody else's under a trusted name would be a trap."""
    site.install("jsonl-log", "raise SystemExit")
    assert installed_plugins()["jsonl-log"] == DEFAULT_PLUGINS["jsonl-log"]


@pytest.mark.parametrize(
    ("setting", "found"),
    [(None, {"calm", "keen"}), ("", set()), ("keen", {"keen"}), ("calm, keen", {"calm", "keen"})],
)
def test_the_environment_limits_what_is_found(
    site: Site, monkeypatch: pytest.MonkeyPatch, setting: str | None, found: set[str]
) -> None:
    """With one broken package installed there must be a way to start without it."""
    site.install("calm", CALM)
    site.install("keen", CALM)
    if setting is not None:
        monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", setting)
    assert set(installed_plugins()) & {"calm", "keen"} == found
    assert set(DEFAULT_PLUGINS) <= set(installed_plugins())
