"""Settings files: where they are looked for, and what is said of one that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.config import FILE_NAME, home, read_settings
from emowatch.errors import ConfigError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder of a project, two levels below its top."""
    inner = tmp_path / "project" / "src" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    monkeypatch.chdir(inner)
    return tmp_path / "project"


def test_without_files_there_are_no_settings(project: Path) -> None:
    """The usual case costs a few looks at the disk."""
    assert read_settings() == []


def test_the_users_file_comes_first_and_the_projects_may_say_more(project: Path) -> None:
    """Whoever comes later wins."""
    home().mkdir(parents=True, exist_ok=True)
    (home() / FILE_NAME).write_text("seed = 1\n", encoding="utf-8")
    (project / FILE_NAME).write_text("seed = 2\n", encoding="utf-8")
    user, of_project = read_settings()
    assert (user.table, user.is_project) == ({"seed": 1}, False)
    assert (of_project.table, of_project.is_project) == ({"seed": 2}, True)


def test_the_nearest_file_of_a_project_counts_and_none_above_its_top(project: Path) -> None:
    """What lies above a project, as in /tmp, may be anybody's."""
    (project.parent / FILE_NAME).write_text("seed = 1\n", encoding="utf-8")
    assert read_settings() == []
    (project / FILE_NAME).write_text("seed = 2\n", encoding="utf-8")
    (project / "src" / FILE_NAME).write_text("seed = 3\n", encoding="utf-8")
    (found,) = read_settings()
    assert found.table == {"seed": 3}


def test_outside_of_a_project_only_the_folder_itself_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody plants settings by leaving a file in a folder above."""
    (tmp_path / FILE_NAME).write_text("seed = 1\n", encoding="utf-8")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert read_settings() == []
    monkeypatch.chdir(tmp_path)
    assert len(read_settings()) == 1


def test_a_variable_names_another_file_or_none(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way out where a project's file is broken."""
    (project / FILE_NAME).write_text("broken", encoding="utf-8")
    monkeypatch.setenv("EMOWATCH_CONFIG", "")
    assert read_settings() == []
    other = tmp_path / "other.toml"
    other.write_text("seed = 4\n", encoding="utf-8")
    monkeypatch.setenv("EMOWATCH_CONFIG", str(other))
    assert [file.table for file in read_settings()] == [{"seed": 4}]
    monkeypatch.setenv("EMOWATCH_CONFIG", str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigError, match=r"gone\.toml.*No such file"):
        read_settings()


def test_a_file_as_notepad_writes_it_is_read(project: Path) -> None:
    """With a byte order mark at its start."""
    (project / FILE_NAME).write_bytes(b"\xef\xbb\xbfseed = 1\r\n")
    assert read_settings()[0].table == {"seed": 1}


def test_a_home_inside_the_project_is_read_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own file is no project's."""
    monkeypatch.setenv("EMOWATCH_HOME", str(project))
    (project / FILE_NAME).write_text("seed = 1\n", encoding="utf-8")
    (found,) = read_settings()
    assert not found.is_project


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"seed = ", "Invalid value"),
        (b"seed = 1\nseed = 2\n", "Cannot overwrite"),
        (b"\xff\xfe", "utf-8"),
        (b"#" * (1 << 20) + b"\n", "larger than 1 MiB"),
        (b"a = " + b"[" * 100_000, "settings"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(
    content: bytes, words: str, project: Path
) -> None:
    """It is refused before anything runs."""
    (project / FILE_NAME).write_bytes(content)
    with pytest.raises(ConfigError, match=FILE_NAME) as caught:
        read_settings()
    assert words in str(caught.value)


def test_a_folder_in_its_place_is_no_file(project: Path) -> None:
    """A folder of this name is somebody's, and no settings."""
    (project / FILE_NAME).mkdir()
    assert read_settings() == []


def test_only_paths_that_begin_with_a_dot_are_taken_from_the_files_folder(project: Path) -> None:
    """`Qwen/Qwen3-0.6B` is a name, and must stay one."""
    (project / FILE_NAME).touch()
    (file,) = read_settings()
    assert file.placed("./banks/mine") == str(project / "banks" / "mine")
    assert file.placed("../mine") == str(project.parent / "mine")
    assert file.placed("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
