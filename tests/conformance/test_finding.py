"""Finding a plugin that is not installed: a file, a class in it, a distribution's folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from emowatch.conformance import find_plugin
from emowatch.errors import PluginError

CODE = """
from emowatch import hookimpl


class One:
    def __init__(self, size="1"):
        self.size = size

    @hookimpl
    def token_scored(self, score):
        pass


class Two:
    @hookimpl
    def turn_finished(self, turn):
        pass


class Helper:
    pass
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a module with two plugins."""
    path = tmp_path / "my_plugins.py"
    path.write_text(CODE, encoding="utf-8")
    return path


def test_every_class_with_a_hook_in_a_file_is_found(file: Path) -> None:
    """And none without one."""
    found = find_plugin(str(file), {})
    assert list(found) == ["One", "Two"]
    first, second = found["One"](), found["One"]()
    assert first is not second


def test_one_class_is_made_with_options(file: Path) -> None:
    """As the command line would make it."""
    (make,) = find_plugin(f"{file}:One", {"size": "3"}).values()
    assert vars(make()) == {"size": "3"}


def test_a_module_with_hooks_is_a_plugin_itself(tmp_path: Path) -> None:
    """It is the kind that adds commands and banks."""
    path = tmp_path / "whole.py"
    path.write_text(
        "from emowatch import hookimpl\n@hookimpl\ndef turn_finished(turn): pass\n",
        encoding="utf-8",
    )
    (make,) = find_plugin(str(path), {}).values()
    assert make() is make()


def test_a_folder_is_read_by_its_entry_points_and_leaves_the_path_as_it_was(
    tmp_path: Path,
) -> None:
    """Before it is installed; modules under src/ too."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "emowatch_found.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        '[project.entry-points.emowatch]\nfound = "emowatch_found:Two"\n', encoding="utf-8"
    )
    before = list(sys.path)
    try:
        found = find_plugin(str(tmp_path), {})
        assert list(found) == ["found"]
        assert type(found["found"]()).__name__ == "Two"
    finally:
        sys.modules.pop("emowatch_found", None)
    assert sys.path == before


def test_an_installed_plugin_is_found_by_its_name() -> None:
    """With the options that the command line takes."""
    (make,) = find_plugin("threshold-alarm", {"threshold": "0.5"}).values()
    assert make().threshold == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.py", None, "no such file"),
        ("empty.py", "x = 1\n", "marked with @emowatch.hookimpl"),
        ("broken.py", "import nothing_of_this_name\n", "nothing_of_this_name"),
        ("exits.py", "raise SystemExit(3)\n", "SystemExit"),
        ("one.py:Three", CODE, "it has no 'Three'"),
    ],
)
def test_what_holds_no_plugin_is_refused_in_words(
    name: str, content: str | None, words: str, tmp_path: Path
) -> None:
    """The file is named."""
    path = tmp_path / name.partition(":")[0]
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(PluginError, match=path.name) as caught:
        find_plugin(str(tmp_path / name), {})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "FileNotFoundError"),
        ("[project]\nname = 'x'\n", "entry-points"),
        ("broken", "no pyproject.toml"),
        ("[project.entry-points.emowatch]\n", "empty"),
        ("[project.entry-points.emowatch]\nx = 'no_such_module_here:X'\n", "no_such_module_here"),
    ],
)
def test_a_folder_without_a_plugin_is_refused_in_words(
    text: str | None, words: str, tmp_path: Path
) -> None:
    """What is missing is named."""
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    with pytest.raises(PluginError) as caught:
        find_plugin(str(tmp_path), {})
    assert words in str(caught.value)
