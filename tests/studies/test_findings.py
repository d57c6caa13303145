"""Values of a study: tables that fit their columns, and differences with intervals."""

from __future__ import annotations

import pytest

from emowatch.studies.findings import Table, difference, estimate_of
from emowatch.workshop.metrics import Estimate


def test_a_row_that_does_not_fit_its_columns_is_refused() -> None:
    """A shifted row would be read as other figures."""
    with pytest.raises(ValueError, match="t: 1 cells under 2 columns"):
        Table(name="t", title="", columns=("a", "b"), rows=((1, 2), (3,)))


def test_a_column_is_found_by_its_name() -> None:
    """Figures take their numbers from the table that is shown."""
    table = Table(name="t", title="", columns=("a", "b"), rows=((1, "x"), (2, None)))
    assert table.column("b") == ["x", None]


def test_a_difference_is_as_wide_as_both_intervals_in_quadrature() -> None:
    """Zou and Donner 2008, equation 4, by hand: distances 3 and 4 make 5."""
    found = difference(Estimate(0.9, 0.87, 0.94), Estimate(0.5, 0.47, 0.54))
    assert found.value == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - 0.05)
    assert found.high == pytest.approx(0.4 + 0.05)


def test_what_was_not_measured_stays_so() -> None:
    """Neither a figure without an interval nor none at all is made into an estimate."""
    assert estimate_of(None, None) is None
    assert estimate_of(0.5, None) == 0.5
    assert estimate_of(0.5, (0.4, 0.6)) == Estimate(0.5, 0.4, 0.6)
