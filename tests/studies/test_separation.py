"""Clouds that lie apart, and clouds that do not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import davies_bouldin_score, silhouette_score

from emowatch.studies import separation as module
from emowatch.studies.separation import separation

LABELS = np.arange(120) % 3


def clouds(apart: float, seed: int = 0) -> np.ndarray:
    """Draw three round clouds on a line."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(120, 2)) + apart * LABELS[:, None]


def test_the_figures_are_scikit_learns() -> None:
    """Of the whole set, without resampling."""
    points = clouds(3)
    found = separation(points, LABELS)
    assert found.silhouette.value == pytest.approx(silhouette_score(points, LABELS))
    assert found.davies_bouldin.value == pytest.approx(davies_bouldin_score(points, LABELS))
    assert found.silhouette.low < found.silhouette.value < found.silhouette.high


def test_clouds_that_lie_apart_are_above_the_null() -> None:
    """Permuted labels tell how high points like these come by chance."""
    found = separation(clouds(8), LABELS)
    assert found.silhouette.low > found.silhouette_null.high
    assert found.davies_bouldin.high < found.davies_bouldin_null.low


def test_one_cloud_is_not_told_from_the_null() -> None:
    """No labels can part what is one."""
    found = separation(clouds(0), LABELS)
    assert found.silhouette_null.low <= found.silhouette.value <= found.silhouette_null.high


def test_of_very_many_points_a_sample_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of them would not fit in memory."""
    whole = separation(clouds(3), LABELS).silhouette.value
    monkeypatch.setattr(module, "MOST", 60)
    assert separation(clouds(3), LABELS).silhouette.value == pytest.approx(whole, abs=0.1)
