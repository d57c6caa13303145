"""Logged turns as flat rows: a column for each mean score."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from emowatch.errors import UsageError
from emowatch.logbook.reading import LoggedTurn
from emowatch.text import clean

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a cell for a formula."""
_FIXED = (
    "id",
    "thread_id",
    "turn",
    "sequence",
    "model",
    "datetime_utc",
    "complete",
    "finish_reason",
    "input_tokens",
    "output_tokens",
    "duration_ms",
    "response",
)


def flat_rows(turns: Iterable[LoggedTurn]) -> list[dict[str, Any]]:
    """Lay turns out in rows with the same columns; scores are called ``PROBE.LABEL``."""
    rows = []
    for turn in turns:
        row = {name: getattr(turn, name) for name in _FIXED}
        row["alarms"] = len(turn.alarms)
        for probe, scores in turn.means.items():
            row |= {f"{probe}.{label}": score for label, score in scores.items()}
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in columns} for row in rows]


def write_csv(turns: Iterable[LoggedTurn], out: TextIO) -> None:
    """Write CSV; no cell is a formula, and none holds a control character."""
    rows = flat_rows(turns)
    columns = list(rows[0]) if rows else [*_FIXED, "alarms"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(value) for value in row.values()] for row in rows)


def write_parquet(turns: Iterable[LoggedTurn], path: Path) -> None:
    """Write a Parquet file.

    Raises:
        UsageError: without pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            'Parquet files need pyarrow: pip install "emowatch[data]". --csv needs nothing.'
        ) from error
    parquet.write_table(pyarrow.Table.from_pylist(flat_rows(turns)), path)


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(FORMULA) else text
