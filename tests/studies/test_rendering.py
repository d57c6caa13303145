"""Tables as text and as JSON."""

from __future__ import annotations

import json

import pytest

from emowatch.studies.findings import Cell, Findings, Table
from emowatch.studies.rendering import as_json, render_findings, written
from emowatch.workshop.metrics import Estimate

NAN = float("nan")
INFINITE = float("inf")


def findings(*rows: tuple[Cell, ...], model: str = "tiny") -> Findings:
    """Find one table of two columns."""
    table = Table(name="t", title="A table", columns=("name", "figure"), rows=rows, note="A note.")
    return Findings(
        study="s",
        title="A study",
        source="a paper",
        model=model,
        sizes={"texts": 1200},
        settings={"seed": 0},
        tables=(table,),
        notes=("Something is not known.",),
        numbers={"chance": 0.5},
    )


@pytest.mark.parametrize(
    ("cell", "digits", "text"),
    [
        (None, 3, "–"),
        (1234, 3, "1,234"),
        (0.5, 3, "0.500"),
        (NAN, 3, "–"),
        (INFINITE, 0, "beyond"),
        ("word\x1b[2J", 3, "word�[2J"),
        (Estimate(0.5, 0.25, 0.75), 2, "0.50 [0.25, 0.75]"),
        (Estimate(12.0, 7.0, INFINITE), 0, "12 [7, beyond]"),
        (Estimate(0.5, NAN, NAN), 1, "0.5"),
    ],
)
def test_a_cell_is_written_as_it_is_read(cell: Cell, digits: int, text: str) -> None:
    """An interval stands beside its figure; what is unknown is a dash, never a number."""
    assert written(cell, digits) == text


def test_columns_stand_below_each_other() -> None:
    """Numbers are read down a column."""
    lines = render_findings(findings(("a", 0.5), ("longer", 12.25))).splitlines()
    assert lines[3:7] == [
        "  A table",
        "  name    figure",
        "  a        0.500",
        "  longer  12.250",
    ]
    assert lines[7] == "  A note."
    assert lines[-1] == "  Something is not known."


def test_json_holds_no_number_that_json_has_not() -> None:
    """NaN and infinity would make a file that nobody else can read."""
    found = as_json(findings(("a", Estimate(INFINITE, 1.0, NAN)), ("b", NAN)))
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["tables"]["t"]["rows"] == [
        ["a", {"value": None, "low": 1.0, "high": None}],
        ["b", None],
    ]
    assert again["sizes"] == {"texts": 1200}
