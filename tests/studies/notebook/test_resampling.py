"""One bootstrap for all figures of the same texts."""

from __future__ import annotations

import numpy as np

from emowatch.studies.notebook.resampling import Resampling


def test_an_interval_is_as_wide_as_theory_has_it() -> None:
    """The standard error of a mean of 400 is a twentieth."""
    values = np.random.default_rng(0).normal(3, 1, 400)
    found = Resampling(np.arange(400)).mean(values)
    assert abs(found.value - values.mean()) < 1e-12
    assert abs((found.high - found.low) / (2 * 1.96 * values.std() / 20) - 1) < 0.1


def test_copies_are_drawn_together() -> None:
    """Ten copies of each text are worth no more than one."""
    values = np.random.default_rng(0).normal(0, 1, 60)
    once = Resampling(np.arange(60)).mean(values)
    copied = Resampling(np.repeat(np.arange(60), 10)).mean(np.repeat(values, 10))
    assert np.allclose(once.interval, copied.interval)


def test_what_is_not_known_counts_for_nothing() -> None:
    """Texts of the promoted emotion itself are left out of a mean."""
    values = np.array([1.0, np.nan, 3.0, np.nan])
    assert Resampling(np.arange(4)).mean(values).value == 2
    nothing = Resampling(np.arange(4)).mean(np.full(4, np.nan))
    assert np.isnan(nothing.value)
