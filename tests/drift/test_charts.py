"""EWMA and CUSUM: those of the textbook, and at rest where they should be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emowatch.drift.charts import SLACK, WEIGHT, Charts, Floats


def charts(labels: int = 1) -> Charts:
    """Make charts of standard scores."""
    return Charts(np.zeros(labels), np.ones(labels))


def taken(of: Charts, scores: Sequence[float] | Floats) -> Floats:
    """Take scores that are numbers."""
    assert of.take(list(scores)) is not None
    return of.values


def textbook(values: list[float]) -> list[tuple[float, float, float]]:
    """Follow one series as the definitions have it: EWMA, CUSUM up, CUSUM down."""
    found, e, up, down = [], 0.0, 0.0, 0.0
    for z in values:
        e = WEIGHT * z + (1 - WEIGHT) * e
        up = max(0.0, up + z - SLACK)
        down = max(0.0, down - z - SLACK)
        found.append((e, up, down))
    return found


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40))
def test_they_are_those_of_the_textbook(values: list[float]) -> None:
    """Roberts's and Page's, in both directions."""
    running = charts()
    for z, (e, up, down) in zip(values, textbook(values), strict=True):
        found = taken(running, [z])[:, 0]
        np.testing.assert_allclose(found, [e, -e, up, down], atol=1e-9)


def test_labels_are_followed_apart_and_standardised() -> None:
    """Each by its own mean and spread."""
    both = Charts(np.array([0.2, 0.5]), np.array([0.1, 0.2]))
    alone = charts()
    for step in range(10):
        scores: Floats = np.array([0.2 + 0.01 * step, 0.5])
        found = taken(both, scores)
        np.testing.assert_allclose(
            found[:, 0], taken(alone, [0.1 * step])[:, 0], rtol=1e-9, atol=1e-12
        )
        np.testing.assert_allclose(found[:, 1], [0, 0, 0, 0], atol=1e-12)


def test_the_onset_is_where_a_cusum_last_stood_at_zero() -> None:
    """It tells since when something has been drifting."""
    running = charts()
    for z in [0.0, 0.0, -1.0, 2.0, 2.0, 2.0]:
        running.take([z])
    assert running.onsets[0, 0] == 3
    assert running.onsets[1, 0] == 0


def test_what_is_no_number_changes_nothing() -> None:
    """One NaN must not blind the chart for good."""
    running, beside = charts(), charts()
    for z in [1.0, float("nan"), 1.0]:
        running.take([z])
    for z in [1.0, 1.0]:
        beside.take([z])
    np.testing.assert_array_equal(running.values, beside.values)


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=2), min_size=1, max_size=20),
    st.lists(st.lists(st.floats(0.1, 5), min_size=2, max_size=2), min_size=4, max_size=4),
)
def test_they_tell_when_any_is_past_its_limit(
    tokens: list[list[float]], limits: list[list[float]]
) -> None:
    """Of each chart and label its own."""
    running = Charts([0.0, 0.0], [1.0, 1.0], limits)
    for scores in tokens:
        assert running.take(scores) == bool((running.values > np.array(limits)).any())


def test_they_can_be_brought_to_rest() -> None:
    """And go on as new ones do."""
    running, new = charts(2), charts(2)
    for _ in range(5):
        running.take([2.0, -2.0])
    running.restart()
    np.testing.assert_array_equal(taken(running, [1, 1]), taken(new, [1, 1]))
    np.testing.assert_array_equal(running.onsets, new.onsets)
