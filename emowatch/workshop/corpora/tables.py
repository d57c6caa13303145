"""What every format looks like to the reader: named columns, and rows one at a time.

It does not know what a text or a label is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal

from emowatch.errors import CorpusError

_DETAIL_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number and either its values or what is wrong with it."""

    number: int
    values: Mapping[str, object]
    problem: str | None = None
    """Set where the row could not be parsed."""
    problem_reason: Literal["malformed row", "undecodable bytes"] = "malformed row"


def no_class_names(column: str) -> None:
    """Answer for tables that do not describe their columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An open source of rows."""

    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    """Yields the rows once; the argument names the columns wanted."""
    fingerprint: Callable[[], str]
    """To be called when the rows are used up."""
    class_names: Callable[[str], tuple[str, ...] | None] = no_class_names
    """The names behind a column's integer ids, where the table itself carries them."""
    licence: str | None = None


def shorten(value: object) -> str:
    """Show ``value`` on one line of at most 80 characters."""
    shown = repr(value[:_DETAIL_CHARACTERS] if isinstance(value, str | bytes | list) else value)
    if len(shown) <= _DETAIL_CHARACTERS:
        return shown
    return shown[: _DETAIL_CHARACTERS - 1] + "…"


def import_extra(module: str, purpose: str) -> ModuleType:
    """Import a module of the extra ``data``, or say in one line how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise CorpusError(f'{purpose} needs {name}: pip install "emowatch[data]"') from error
