"""A new plugin: its own tests pass, it installs, and a bad name leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from emowatch.conformance import check_plugin, find_plugin
from emowatch.errors import UsageError
from emowatch.scaffold import write_plugin

ROOT = Path(__file__).parents[2]


def test_its_own_tests_pass_as_written(tmp_path: Path) -> None:
    """In a process of their own, as its author runs them first."""
    write_plugin("mood-lamp", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio"],
        cwd=tmp_path / "emowatch-mood-lamp",
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_it_keeps_the_contract_before_it_is_installed(tmp_path: Path) -> None:
    """`emowatch plugins check FOLDER` is the next line of its README."""
    write_plugin("quiet2", tmp_path)
    try:
        ((name, make),) = find_plugin(str(tmp_path / "emowatch-quiet2"), {"least": "0.2"}).items()
    finally:
        sys.modules.pop("emowatch_quiet2", None)
    assert name == "quiet2"
    assert [one for one in check_plugin(make) if not one.passed] == []


def test_its_wheel_holds_the_module_and_announces_it(tmp_path: Path) -> None:
    """Built by the real back end, without a network."""
    write_plugin("mood-lamp", tmp_path)
    folder = tmp_path / "emowatch-mood-lamp"
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=folder, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        (points,) = [name for name in names if name.endswith("entry_points.txt")]
        announced = files.read(points).decode()
    assert "emowatch_mood_lamp.py" in names
    assert not [name for name in names if name.startswith("tests")]
    assert "mood-lamp = emowatch_mood_lamp:MoodLamp" in announced


def test_what_is_written_follows_this_projects_own_style(tmp_path: Path) -> None:
    """People learn from what they are given."""
    write_plugin("mood-lamp", tmp_path)
    folder = tmp_path / "emowatch-mood-lamp"
    settings = ("--isolated", "--no-cache", "--line-length", "100")
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    chosen = ",".join(rules["lint"]["select"])
    for check in (("check", "--select", chosen), ("format", "--check")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *settings, "."],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["Mood", "mood_lamp", "-x", "x-", "", "a" * 41, "../x", "\x1b[2J"])
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    """It becomes a module, a folder and a distribution."""
    with pytest.raises(UsageError, match="as in mood-lamp") as caught:
        write_plugin(name, tmp_path)
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_or_a_folder_that_is_there_is_refused(tmp_path: Path) -> None:
    """Nobody's work is written over."""
    with pytest.raises(UsageError, match="installed one has that name"):
        write_plugin("jsonl-log", tmp_path)
    write_plugin("mood-lamp", tmp_path)
    with pytest.raises(UsageError, match="there already"):
        write_plugin("mood-lamp", tmp_path)


def test_the_prefix_of_distributions_may_be_part_of_the_name(tmp_path: Path) -> None:
    """As people will type it."""
    files = write_plugin("emowatch-mood-lamp", tmp_path)
    assert files[0].parent.name == "emowatch-mood-lamp"
    points = tomllib.loads((files[1]).read_text(encoding="utf-8"))["project"]["entry-points"]
    assert points == {"emowatch": {"mood-lamp": "emowatch_mood_lamp:MoodLamp"}}
