"""Findings as text for a terminal, and as one JSON object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from emowatch.studies.findings import Cell, Findings, Table
from emowatch.text import clean_line
from emowatch.workshop.metrics import Estimate

ABSENT = "–"
BEYOND = "beyond"
"""An infinite number: what did not happen within what was measured."""
DIGITS = 3


def render_findings(findings: Findings) -> str:
    """Lay out all tables and notes."""
    sizes = ", ".join(f"{n:,} {what}" for what, n in findings.sizes.items())
    lines = [
        f"{findings.title} ({findings.source})",
        f"  {clean_line(findings.model)}: {sizes}",
    ]
    for table in findings.tables:
        lines += ["", *render_table(table)]
    if findings.notes:
        lines += ["", *(f"  {note}" for note in findings.notes)]
    return "\n".join(lines)


def render_table(table: Table) -> list[str]:
    """Lay one table out in columns; text stands left, numbers right."""
    cells = written_rows(table)
    names = [clean_line(name) for name in table.columns]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    text = [all(isinstance(cell, str | None) for cell in table.column(n)) for n in table.columns]

    def line(row: Sequence[str]) -> str:
        placed = [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, text, strict=True)
        ]
        return ("  " + "  ".join(placed)).rstrip()

    lines = [f"  {table.title}", line(names), *map(line, cells)]
    return lines + ([f"  {table.note}"] if table.note else [])


def written_rows(table: Table) -> list[list[str]]:
    """Write all cells of a table."""
    digits = [table.digits.get(name, DIGITS) for name in table.columns]
    return [
        [written(cell, some) for cell, some in zip(row, digits, strict=True)] for row in table.rows
    ]


def written(cell: Cell, digits: int = DIGITS) -> str:
    """Write a cell, with its interval where there is one."""
    if cell is None:
        return ABSENT
    if isinstance(cell, Estimate):
        if math.isnan(cell.low):
            return _fixed(cell.value, digits)
        low, high = _fixed(cell.low, digits), _fixed(cell.high, digits)
        return f"{_fixed(cell.value, digits)} [{low}, {high}]"
    if isinstance(cell, float):
        return _fixed(cell, digits)
    if isinstance(cell, int):
        return f"{cell:,}"
    return clean_line(cell)


def _fixed(value: float, digits: int) -> str:
    if math.isnan(value):
        return ABSENT
    return BEYOND if math.isinf(value) else f"{value:.{digits}f}"


def as_json(findings: Findings) -> dict[str, Any]:
    """Give findings as JSON can hold them."""
    return {
        "study": findings.study,
        "title": findings.title,
        "source": findings.source,
        "model": findings.model,
        "sizes": dict(findings.sizes),
        "settings": dict(findings.settings),
        "numbers": {name: plain(cell) for name, cell in findings.numbers.items()},
        "tables": {table.name: _table(table) for table in findings.tables},
        "figures": {figure.name: figure.caption for figure in findings.figures},
        "notes": list(findings.notes),
    }


def plain(cell: Cell) -> Any:
    """Give a cell as JSON can hold it; NaN is nothing."""
    if isinstance(cell, Estimate):
        parts = {"value": cell.value, "low": cell.low, "high": cell.high}
        return {name: _number(value) for name, value in parts.items()}
    return _number(cell) if isinstance(cell, float) else cell


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _table(table: Table) -> Mapping[str, Any]:
    return {
        "title": table.title,
        "columns": list(table.columns),
        "rows": [[plain(cell) for cell in row] for row in table.rows],
        "note": table.note,
    }
