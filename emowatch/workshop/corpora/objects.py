"""Small JSON files that people write by hand: maps of labels, lists of keywords."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emowatch.errors import UsageError
from emowatch.text import clean_line

MAX_FILE = 2**20


def read_object(path: Path, shown: str, example: str) -> dict[str, Any]:
    """Read one JSON object that is not empty.

    Args:
        path: of the file.
        shown: how an error begins, with the file's name.
        example: of such an object.

    Raises:
        UsageError: for anything else, and for an object that has a key twice.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise UsageError(f"{shown}: the file is larger than {MAX_FILE // 2**20} MiB.")
        table = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_distinct)
    except OSError as error:
        raise UsageError(f"{shown}: {error.strerror}. Check the path.") from error
    except _Twice as error:
        raise UsageError(
            f"{shown}: it has {clean_line(repr(error.key), 60)} twice. Join the two."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{shown}: it is not JSON in UTF-8 ({clean_line(str(error), 80)}). Give an object such "
            f"as {example}."
        ) from error
    if not isinstance(table, dict) or not table:
        raise UsageError(f"{shown}: give an object of labels, such as {example}.")
    return table


class _Twice(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what JSON readers take silently, keeping the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found
