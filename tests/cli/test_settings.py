"""Settings files as defaults of commands: who wins, and what is refused with which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from emowatch.cli.options import chosen_plugins
from emowatch.cli.root import COMMANDS, make_cli
from emowatch.config import FILE_NAME, home
from tests.cli.commands import ROOT, Cli, refused


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder of a project's own."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", "")
    return folder


def parsed(*arguments: str) -> dict[str, Any]:
    """Read a command line as far as the command's arguments, and give those."""
    cli = make_cli()
    with cli.make_context("emowatch", list(arguments)) as context:
        _, command, rest = cli.resolve_command(context, list(arguments))
        assert command is not None
        with command.make_context(arguments[0], rest, parent=context) as inner:
            return dict(inner.params)


def write(folder: Path, text: str) -> None:
    """Write a settings file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAME).write_text(text, encoding="utf-8")


def test_flag_over_environment_over_project_over_user_over_default(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is taken away in turn, and the next one shows."""
    write(home(), "max-new-tokens = 11\nseed = 11\n")
    write(project, "max-new-tokens = 22\n")
    monkeypatch.setenv("EMOWATCH_MAX_NEW_TOKENS", "33")
    assert parsed("run", "hi", "--max-new-tokens", "44")["max_new_tokens"] == 44
    assert parsed("run", "hi")["max_new_tokens"] == 33
    monkeypatch.delenv("EMOWATCH_MAX_NEW_TOKENS")
    assert parsed("run", "hi")["max_new_tokens"] == 22
    assert parsed("run", "hi")["seed"] == 11
    (project / FILE_NAME).unlink()
    assert parsed("run", "hi")["max_new_tokens"] == 11
    (home() / FILE_NAME).unlink()
    assert parsed("run", "hi")["max_new_tokens"] == 200


def test_a_commands_own_table_goes_before_what_holds_for_all(project: Path) -> None:
    """In whichever order they stand."""
    write(project, "[chat]\nseed = 3\n[run]\nseed = 2\nsample = true\n")
    assert parsed("run", "hi")["seed"] == 2
    write(project, 'model = "./m"\nseed = 1\n[chat]\nseed = 3\n')
    assert parsed("run", "hi")["seed"] == 1
    assert parsed("chat")["seed"] == 3
    assert parsed("doctor")["model"] == str(project / "m")  # an argument, there


def test_one_value_or_several_for_an_option_that_repeats(project: Path) -> None:
    """`probe = "x"` is what people write."""
    write(project, 'probe = "mine"\n')
    assert parsed("run", "hi")["probes"] == ("mine",)
    write(project, 'probe = ["mine", "./yours"]\n')
    assert parsed("run", "hi")["probes"] == ("mine", str(project / "yours"))


def test_options_of_plugins_hold_where_the_flag_says_nothing_else(project: Path) -> None:
    """A threshold is a team's decision, and stands in its file."""
    write(
        home(),
        '[plugins.threshold-alarm]\nthreshold = 0.5\nlabel = "fear"\n',
    )
    write(project, "[plugins.threshold-alarm]\nthreshold = 0.6\ncooldown = 4\n")
    cli = make_cli()
    with cli.make_context("emowatch", ["run", "hi"]) as context:
        cli.resolve_command(context, ["run", "hi"])
        found = chosen_plugins(("threshold-alarm:cooldown=9", "jsonl-log"), None, "none")
    own = {"threshold": 0.6, "label": "fear", "cooldown": "9"}
    assert found == [("threshold-alarm", own), ("jsonl-log", {})]


def test_plugins_that_a_folder_brings_are_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They hear what is said, and whoever runs the command need not have seen the file."""
    write(home(), 'plugin = "jsonl-log"\n')
    parsed("run", "hi")
    assert capsys.readouterr().err == ""
    write(project, '[run]\nplugin = "jsonl-log"\n')
    parsed("run", "hi")
    assert capsys.readouterr().err == f"emowatch: plugins as set in {project / FILE_NAME}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max-new-tokns = 3", ("'max-new-tokns'", "did you mean 'max-new-tokens'?")),
        ("[run]\nheadd = 3", ("'run.headd'", "nothing goes by that name")),
        ("[rnu]\nseed = 3", ("'rnu'", "did you mean 'run'?")),
        ('max-new-tokens = "many"', ("'max-new-tokens'", "'many' is not a valid integer")),
        ("max-new-tokens = 0", ("'max-new-tokens'", "0 is not in the range")),
        ("max-new-tokens = [1, 2]", ("one value, and not a list",)),
        ("max-new-tokens = true", ("it cannot be True",)),
        ('sample = "yes"', ("true or false, got 'yes'",)),
        ('head = "big"', ("'big' is not one of",)),
        ("trust-remote-code = true", ("command line alone", "--trust-remote-code")),
        ("overwrite = true", ("command line alone", "--overwrite")),
        ("plugins = 3", ("a table for each plugin",)),
        ("[plugins.jsonl-lgo]\npath = 'x'", ("'plugins.jsonl-lgo'", "did you mean 'jsonl-log'?")),
        ("[plugins]\njsonl-log = 3", ("'plugins.jsonl-log'", "a table of options")),
        ('"\\u001b[2J" = 3', ("nothing goes by that name",)),
    ],
)
def test_what_cannot_be_used_is_named_with_its_file(
    text: str, words: tuple[str, ...], project: Path, cli: Cli
) -> None:
    """One sentence, exit code 2, before a model is loaded; what it quotes is harmless."""
    write(project, text)
    done = cli("run", "hi")
    refused(done, str(project / FILE_NAME), *words)
    assert "\x1b" not in done.err


def test_help_is_given_whatever_the_file_says(project: Path, cli: Cli) -> None:
    """Whoever mends it looks up the options."""
    write(project, "broken")
    assert cli("run", "--help").code == 0
    assert cli("--version").code == 0


def test_no_variable_permits_what_only_a_flag_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of a repository runs where somebody asked for it in so many words."""
    monkeypatch.setenv("EMOWATCH_TRUST_REMOTE_CODE", "1")
    monkeypatch.setenv("EMOWATCH_OVERWRITE", "1")
    monkeypatch.setenv("EMOWATCH_SEED", "5")
    found = parsed("train", "data.tsv")
    assert (found["trust_remote_code"], found["overwrite"], found["seed"]) == (False, False, 5)


def test_commands_of_plugins_are_left_alone(project: Path) -> None:
    """Settings are those of the built-in commands."""
    write(project, "seed = 1\n")
    cli = make_cli()
    cli.add_command(click.Command("more", callback=lambda: None), "more")
    assert cli.main(["more"], standalone_mode=False) is None


def test_the_guides_example_is_read_as_it_says(project: Path) -> None:
    """An example that is refused would be the first that people try."""
    guide = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    write(project, example)
    found = parsed("chat")
    assert found["model"] == "Qwen/Qwen3-0.6B"
    assert found["probes"] == (str(project / "banks/mine"), str(project / "banks/tone"))
    assert (found["max_new_tokens"], parsed("run", "hi")["max_new_tokens"]) == (400, 200)


def test_the_guide_names_the_variables_that_differ_from_their_option() -> None:
    """`--probe` is kept as `probes`, which is where its variable has its name from."""
    guide = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    differing = set()
    for name in COMMANDS:
        command = make_cli().get_command(click.Context(make_cli()), name)
        assert command is not None
        for option in command.params:
            flag = max(option.opts, key=len).lstrip("-").replace("-", "_")
            if isinstance(option, click.Option) and option.name not in (flag, f"as_{flag}"):
                differing.add(f"EMOWATCH_{str(option.name).upper()}")
    named = set(re.findall(r"EMOWATCH_\w+", guide))
    assert differing == named - {"EMOWATCH_HOME", "EMOWATCH_CONFIG", "EMOWATCH_MAX_NEW_TOKENS"}
