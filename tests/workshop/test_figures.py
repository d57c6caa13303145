"""Figures: drawn where matplotlib is, and asked for in words where it is not."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path

import pytest

from emowatch.errors import UsageError
from emowatch.workshop import figures
from emowatch.workshop.figures import draw_figures, require_matplotlib
from tests.workshop.test_evaluation import bank_of, measured, readers, rows


def test_each_figure_is_an_svg_that_names_its_bank(tmp_path: Path) -> None:
    """They stand in reports, where nobody remembers what was drawn."""
    bank = readers()
    drawn = draw_figures(bank.card, measured(bank, rows(), shuffled=bank), tmp_path / "new")
    assert [path.name for path in drawn] == ["layers.svg", "confusion.svg"]
    for path in drawn:
        assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_accuracy_by_offset_is_drawn_for_replies(tmp_path: Path) -> None:
    """Only there are offsets."""
    bank = bank_of(readers().tensors["weight"], bins=(0, 1, 8))
    drawn = draw_figures(bank.card, measured(bank, rows(offsets=12)), tmp_path)
    assert [path.name for path in drawn] == ["layers.svg", "confusion.svg", "offsets.svg"]


def test_drawing_shows_no_window_and_touches_no_global_state(tmp_path: Path) -> None:
    """A library that opens a display fails on every server."""
    had = "matplotlib.pyplot" in sys.modules
    bank = readers()
    draw_figures(bank.card, measured(bank, rows()), tmp_path)
    assert ("matplotlib.pyplot" in sys.modules) == had


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before hours of work, not after."""
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "emowatch\[plot\]"'):
        require_matplotlib()
    if util.find_spec("matplotlib") is not None:
        monkeypatch.undo()
        require_matplotlib()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The figures are the last step; a traceback there would hide the results."""
    (tmp_path / "taken").touch()
    bank = readers()
    with pytest.raises(UsageError, match=r"Could not write figures to .*taken"):
        draw_figures(bank.card, measured(bank, rows()), tmp_path / "taken")
