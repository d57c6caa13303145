"""Settings that people keep in files, and where those files are. Knows nothing of commands."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from emowatch.errors import ConfigError
from emowatch.text import clean_line

FILE_NAME = "emowatch.toml"
MAX_BYTES = 1 << 20
"""Of a settings file; a larger one is no settings file."""
ROOTS = (".git", "pyproject.toml")
"""What the top folder of a project holds."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What one file says."""

    path: Path
    table: dict[str, Any]
    is_project: bool
    """Whether it came with a folder, and not from the user's own home."""

    def placed(self, value: str) -> str:
        """Take a path that begins with ``./`` or ``../`` from the folder of the file."""
        if value.startswith(("./", "../")):
            return os.path.normpath(self.path.parent / value)
        return value


def home() -> Path:
    """Name the folder of the user's data: ``EMOWATCH_HOME``, or where the system keeps such."""
    named = os.environ.get("EMOWATCH_HOME")
    return Path(named) if named else platformdirs.user_data_path("emowatch", appauthor=False)


def read_settings() -> list[SettingsFile]:
    """Read the user's file and the project's, in this order: the later says more.

    The user's is in `home`. The project's is in the current folder or one above it, as far up as
    the top of the project; ``EMOWATCH_CONFIG`` names another in its place, or none where it is
    empty.

    Raises:
        ConfigError: for a file that cannot be read or is no TOML.
    """
    found = []
    user = home() / FILE_NAME
    if user.is_file():
        found.append(SettingsFile(user, _read(user), is_project=False))
    named = os.environ.get("EMOWATCH_CONFIG")
    project = _of_project(Path.cwd()) if named is None else Path(named) if named else None
    if project is not None and (not user.is_file() or not _is_same(project, user)):
        found.append(SettingsFile(project.absolute(), _read(project), is_project=True))
    return found


def _of_project(start: Path) -> Path | None:
    """Find the nearest settings file from a folder up to the top of its project.

    Outside of a project only the folder itself counts: what lies further up, as in ``/tmp``, may
    be anybody's.
    """
    above = [start, *start.parents]
    tops = [
        place for place, folder in enumerate(above) if any((folder / r).exists() for r in ROOTS)
    ]
    for folder in above[: tops[0] + 1 if tops else 1]:
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _read(path: Path) -> dict[str, Any]:
    shown = clean_line(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"Could not read the settings in {shown!r}: {error.strerror}. Mend or remove it; "
            "EMOWATCH_CONFIG= leaves out a project's."
        ) from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"Could not read the settings in {shown!r}: it is larger than 1 MiB.")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8
        raise ConfigError(
            f"Could not read the settings in {shown!r}: {clean_line(str(error), 160)}."
        ) from error
