"""The card of a corpus: its tables add up, and everything is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.errors import UsageError
from emowatch.workshop.building.describing import describe, draw_lengths, render
from tests.workshop.building.rows import natural, some_rows

ROWS = [
    natural("a b c", "joy", source="a.csv", model="m1", template="label:1"),
    natural("a b c d e", "joy", id="2", provenance="rewritten", source="a.csv", model="m2"),
    natural("word " * 200, "fear", id="3", provenance="synthetic", model="\x1b[2Jm3", judge="j"),
    natural("one", "joy"),
]


def test_the_table_counts_every_row_once() -> None:
    """As Table 1 of the paper does not: its text and its sum differ."""
    card = describe(ROWS)
    assert card.table == {
        "fear": {"natural": 0, "rewritten": 0, "synthetic": 1},
        "joy": {"natural": 2, "rewritten": 1, "synthetic": 0},
    }
    assert (card.rows, card.parents) == (4, 4)
    assert card.sources == {"a.csv": 2, "not known": 2}
    assert card.judges == {"not known": 1, "j": 1}
    assert card.templates == {"not known": 3, "label:1": 1}


def test_lengths_are_those_of_each_label() -> None:
    """Every text is in one bin."""
    words = describe(ROWS).words
    assert (words["joy"].n, words["joy"].median) == (3, 3)
    assert words["joy"].histogram == (2, 1, 0, 0, 0, 0, 0, 0, 0)
    assert words["fear"].histogram[-1] == 1
    big = describe(some_rows(9)).words
    assert all(sum(of.histogram) == of.n == 9 for of in big.values())


def test_the_text_is_narrow_clean_and_complete() -> None:
    """It is pasted into papers and terminals."""
    told = render(describe(ROWS), "a.jsonl")
    assert max(map(len, told.splitlines())) <= 80
    assert "\x1b" not in told
    assert told.splitlines()[0] == "a.jsonl: 4 texts of 4 parents"
    assert "  sum            2          1          1          4" in told


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    """In the format that its name says."""
    pytest.importorskip("matplotlib")
    draw_lengths(ROWS, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    for path in (tmp_path / "a.xyz", tmp_path / "no" / "a.svg"):
        with pytest.raises(UsageError, match="Could not draw to"):
            draw_lengths(ROWS, path)
