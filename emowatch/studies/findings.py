"""What a study found, as plain values: tables, figures, and what must be said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emowatch.workshop.metrics import Estimate

Cell = str | int | float | Estimate | None
"""`None` is what was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Named columns and rows of cells."""

    name: str
    """Stem of its CSV file."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    """What a reader must know, below the table."""
    digits: Mapping[str, int] = field(default_factory=dict)
    """Digits behind the point where a column needs other than three."""

    def __post_init__(self) -> None:
        """Hold every row to the columns."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.name}: {len(row)} cells under {len(self.columns)} columns")

    def column(self, name: str) -> list[Cell]:
        """List the cells of one column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing that is made when it is written, with the numbers that it shows."""

    name: str
    """Stem of its PNG, SVG and CSV files."""
    caption: str
    draw: Callable[[Any], None]
    """Given an empty matplotlib figure."""
    data: Table
    size: tuple[float, float] = (7.0, 4.4)
    """Width and height in inches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that a study found."""

    study: str
    title: str
    source: str
    """Paper, section and table that it repeats."""
    model: str
    sizes: Mapping[str, int]
    """How many texts, replies or states stand behind the figures, by what they are."""
    settings: Mapping[str, Any]
    """What it was run with, as JSON can hold it."""
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences: what the numbers do not say, and what could not be measured."""
    numbers: Mapping[str, Cell] = field(default_factory=dict)
    """The headline figures by name, for those who compare runs."""


def estimate_of(value: float | None, interval: Sequence[float] | None) -> Cell:
    """Join a figure with its interval, where it was measured."""
    if value is None or interval is None:
        return value
    return Estimate(value, interval[0], interval[1])


def difference(left: Estimate, right: Estimate) -> Estimate:
    """Give `left` minus `right` with an interval from theirs, taken as independent (MOVER: Zou
    and Donner 2008, equation 4)."""
    value = left.value - right.value
    down = ((left.value - left.low) ** 2 + (right.high - right.value) ** 2) ** 0.5
    up = ((left.high - left.value) ** 2 + (right.value - right.low) ** 2) ** 0.5
    return Estimate(value, value - down, value + up)
