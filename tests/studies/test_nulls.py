"""Where heads of meaningless labels lie."""

from __future__ import annotations

import numpy as np
import pytest

from emowatch.studies.nulls import SHARE, spread_of


def test_most_further_orders_lie_within() -> None:
    """Of many draws like the first ten, about 95 %; the spread of ten is itself uncertain."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        found = spread_of(rng.normal(0.14, 0.05, 10))
        assert found is not None
        held.append(
            np.mean((found.low < (more := rng.normal(0.14, 0.05, 100))) & (more < found.high))
        )
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_an_accuracy_does_not_lie_below_nothing() -> None:
    """Few orders far apart."""
    found = spread_of(np.array([0.05, 0.4]), SHARE)
    assert found is not None and (found.low, found.high) == (0, 1)


def test_one_order_tells_no_spread() -> None:
    """Nor does none."""
    assert spread_of(np.array([0.27])) is None
    assert spread_of(np.array([])) is None
