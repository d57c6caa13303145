"""Clouds that lie apart, and clouds that do not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import davies_bouldin_score, silhouette_score

from emowatch.studies import separation as module
from emowatch.studies.separation import separation

LABELS = np.arange(120) % 3
ALONE = np.arange(120)
"""Each point a group of its own."""


def clouds(apart: float, seed: int = 0) -> np.ndarray:
    """Draw three round clouds on a line."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(120, 2)) + apart * LABELS[:, None]


def test_the_figures_are_scikit_learns() -> None:
    """Of the whole set, without resampling."""
    points = clouds(3)
    found = separation(points, LABELS, ALONE)
    assert found.silhouette.value == pytest.approx(silhouette_score(points, LABELS))
    assert found.davies_bouldin.value == pytest.approx(davies_bouldin_score(points, LABELS))
    assert found.silhouette.low < found.silhouette.value < found.silhouette.high


def test_clouds_that_lie_apart_are_above_the_null() -> None:
    """Permuted labels tell how high points like these come by chance."""
    found = separation(clouds(8), LABELS, ALONE)
    assert found.silhouette.low > found.silhouette_null.high
    assert found.davies_bouldin.high < found.davies_bouldin_null.low


def test_one_cloud_is_not_told_from_the_null() -> None:
    """No labels can part what is one."""
    found = separation(clouds(0), LABELS, ALONE)
    assert found.silhouette_null.low <= found.silhouette.value <= found.silhouette_null.high


def test_of_very_many_points_a_sample_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of them would not fit in memory."""
    whole = separation(clouds(3), LABELS, ALONE).silhouette.value
    monkeypatch.setattr(module, "MOST", 60)
    assert separation(clouds(3), LABELS, ALONE).silhouette.value == pytest.approx(whole, abs=0.1)


def test_copies_of_the_points_tell_nothing_new() -> None:
    """Texts of one group say the same again: the intervals must not become narrower by them."""
    points = clouds(1)
    once = separation(points, LABELS, ALONE)
    many = separation(np.repeat(points, 4, axis=0), np.repeat(LABELS, 4), np.repeat(ALONE, 4))
    for name in ("silhouette", "davies_bouldin"):
        few, more = getattr(once, name), getattr(many, name)
        assert more.high - more.low > 0.8 * (few.high - few.low)


def test_a_null_lies_within_its_own_interval() -> None:
    """Davies-Bouldin is in the millions where a draw parts points into halves of one centre."""
    points: NDArray[np.float64] = 2.0 ** np.arange(10, dtype=np.float64)
    points[9] = points[:5].sum() - points[5:9].sum() + 1e-6
    null = separation(points[:, None], np.arange(10) % 2, np.arange(10)).davies_bouldin_null
    assert null.low <= null.value <= null.high
