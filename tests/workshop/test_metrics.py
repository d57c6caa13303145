"""Metrics: the figures are those of the textbook, and the intervals are honest."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from emowatch.workshop.metrics import (
    Predictions,
    auroc,
    fall,
    group_means,
    means,
    named,
    perfect_ece,
    report,
)

Doubles = npt.NDArray[np.float64]


def predictions(
    rows: int, classes: int = 4, skill: float = 1.0, seed: int = 0
) -> tuple[Doubles, npt.NDArray[np.int64]]:
    """Draw labels, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    logits = rng.normal(size=(rows, classes)) + skill * np.eye(classes)[labels]
    scores = np.exp(logits)
    return scores / scores.sum(1, keepdims=True), labels


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(2, 6))
def test_figures_are_those_of_scikit_learn(seed: int, rows: int, classes: int) -> None:
    """Also where a class has no rows or is never predicted: there is no share of nothing."""
    scores, labels = predictions(rows, classes, seed=seed)
    found, said = report(scores, labels, range(rows), resamples=0), scores.argmax(1)
    names = list(range(classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are not there
        assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, said))
        assert found.macro_f1.value == pytest.approx(f1_score(labels, said, average="macro"))
    options: dict[str, Any] = {"labels": names, "average": None, "zero_division": 0}
    np.testing.assert_allclose(found.recall(), recall_score(labels, said, **options))
    np.testing.assert_allclose(found.precision(), precision_score(labels, said, **options))
    assert [one is None for one in found.recalls] == [k not in labels for k in names]
    assert [one is None for one in found.precisions] == [k not in said for k in names]
    assert (found.confusion == confusion_matrix(labels, said, labels=names)).all()


def test_the_calibration_error_is_what_a_hand_computes() -> None:
    """Two rows at 0.9 of which one is right, two at 0.6 of which both are: (0.8 + 0.8) / 4."""
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.6, 0.4]])
    found = report(scores, [0, 1, 1, 0], range(4), resamples=0)
    assert found.ece.value == pytest.approx(abs(1.8 - 1) / 4 + abs(1.2 - 2) / 4)
    sure = report(np.eye(2)[[0, 1]], [0, 1], range(2), resamples=0)
    assert sure.ece.value == 0


def test_calibrated_scores_have_a_small_calibration_error() -> None:
    """Labels drawn from the scores themselves leave nothing but noise."""
    scores, _ = predictions(20_000, skill=0)
    rng = np.random.default_rng(1)
    labels = (scores.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    assert report(scores, labels, range(20_000), resamples=0).ece.value < 0.015


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """95 % of them should; fewer would be boasting."""
    scores, labels = predictions(40_000)
    truth = report(scores, labels, range(40_000), resamples=0)
    covered = 0
    for number in range(100):
        part = slice(number * 300, (number + 1) * 300)
        found = report(scores[part], labels[part], range(300), resamples=200).balanced_accuracy
        assert found.low <= found.value <= found.high
        covered += found.low <= truth.balanced_accuracy.value <= found.high
    assert 88 <= covered <= 100


def test_figures_of_one_class_have_intervals_too() -> None:
    """Those of a class with few rows are wide; resamples without it say nothing of it."""
    scores, labels = predictions(400, skill=1.5)
    few = np.flatnonzero(labels == 1)[4:]
    scores, labels = np.delete(scores, few, 0), np.delete(labels, few)
    found = report(scores, labels, range(len(labels)))
    for shares in (found.recalls, found.precisions):
        for one in shares:
            assert one is not None
            assert 0 <= one.low <= one.value <= one.high <= 1
    many, rare = found.recalls[0], found.recalls[1]
    assert many is not None and rare is not None
    assert rare.high - rare.low > 2 * (many.high - many.low)


def test_rows_repeated_within_their_group_change_nothing() -> None:
    """Eight states of one reply are not eight observations."""
    scores, labels = predictions(120)
    groups = np.arange(120) // 2
    once = report(scores, labels, groups)
    again = report(np.repeat(scores, 8, 0), np.repeat(labels, 8), np.repeat(groups, 8))
    for name in ("balanced_accuracy", "macro_f1", "ece"):
        one, other = getattr(once, name), getattr(again, name)
        assert (one.value, *one.interval) == pytest.approx((other.value, *other.interval))
    naive = report(np.repeat(scores, 8, 0), np.repeat(labels, 8), range(960)).balanced_accuracy
    honest = again.balanced_accuracy
    assert naive.high - naive.low < 0.6 * (honest.high - honest.low)


def test_what_a_group_is_called_does_not_matter() -> None:
    """Numbers of examples have gaps after undersampling."""
    scores, labels = predictions(60)
    groups = np.arange(60) // 3
    assert report(scores, labels, groups).ece == report(scores, labels, groups * 7 + 100).ece


def test_the_seed_decides_the_interval_and_not_the_figure() -> None:
    """A report can be made again."""
    scores, labels = predictions(90)
    first, second, other = (report(scores, labels, range(90), seed=s) for s in (0, 0, 1))
    assert first.macro_f1 == second.macro_f1
    assert first.macro_f1.value == other.macro_f1.value
    assert first.macro_f1.interval != other.macro_f1.interval


def test_without_resamples_there_is_no_interval() -> None:
    """NaN is not mistaken for an interval."""
    scores, labels = predictions(30)
    found = report(scores, labels, range(30), resamples=0)
    assert (
        found.balanced_accuracy.value == report(scores, labels, range(30)).balanced_accuracy.value
    )
    assert all(math.isnan(end) for end in found.ece.interval)


def test_a_fall_is_the_difference_of_two_accuracies() -> None:
    """With the sign of a loss; nothing is lost where nothing changes."""
    scores, labels = predictions(300, skill=2.0)
    worse, _ = predictions(300, skill=0.5, seed=1)
    groups = np.arange(300)
    before, after = Predictions(scores, labels, groups), Predictions(worse, labels, groups)
    found = fall(before, after)
    first, second = (report(s, labels, groups).balanced_accuracy.value for s in (scores, worse))
    assert found.value == pytest.approx(first - second)
    assert found.low < found.value < found.high
    same = fall(before, before)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert fall(after, before).value == pytest.approx(-found.value)


def test_a_fall_is_measured_in_the_same_resamples() -> None:
    """Two sets of predictions that differ in few rows differ by little, however hard the rows."""
    scores, labels = predictions(300, skill=1.0)
    changed = scores.copy()
    changed[:3] = 1 - np.eye(4)[labels[:3]]
    groups = np.arange(300) // 2
    before = Predictions(scores, labels, groups)
    found = fall(before, Predictions(changed, labels, groups))
    alone = report(scores, labels, groups).balanced_accuracy
    assert found.high - found.low < 0.5 * (alone.high - alone.low)


def test_a_fall_takes_groups_that_one_side_lost() -> None:
    """A masked text may leave no state, and its group is then in one of the two only."""
    scores, labels = predictions(200)
    groups = np.arange(200)
    kept = groups >= 20
    found = fall(
        Predictions(scores, labels, groups),
        Predictions(scores[kept], labels[kept], groups[kept]),
    )
    whole, part = report(scores, labels, groups), report(scores[kept], labels[kept], groups[kept])
    assert found.value == pytest.approx(
        whole.balanced_accuracy.value - part.balanced_accuracy.value
    )


def test_figures_are_named_as_on_cards() -> None:
    """What was not measured has no figure and no interval, under the same names."""
    scores, labels = predictions(50)
    found = report(scores, labels, np.arange(50)).ece
    assert named("ece", found) == {
        "ece": round(found.value, 4),
        "ece_interval": (round(found.low, 4), round(found.high, 4)),
    }
    assert named("ece", None) == {"ece": None, "ece_interval": None}


# Means, detectors, and the ECE of scores without fault


def test_means_are_over_rows_and_intervals_over_groups() -> None:
    """Copies of one row say nothing new: the interval must not shrink with them."""
    values = np.random.default_rng(0).random((200, 2))
    found = means(values, np.arange(200))
    assert [one.value for one in found] == pytest.approx(values.mean(0).tolist())
    copied = means(np.repeat(values, 5, axis=0), np.repeat(np.arange(200), 5))
    for one, other in zip(found, copied, strict=True):
        assert other.interval == pytest.approx(one.interval)
        assert one.high - one.low == pytest.approx(4 * values.std() / 200**0.5, rel=0.2)


def test_a_group_weighs_the_same_however_many_rows_it_has() -> None:
    """A long reply is one reply."""
    values = np.array([[1.0], [0.0], [0.0], [0.0]])
    groups = np.array([0, 1, 1, 1])
    assert group_means(values, groups)[0].value == 0.5
    assert means(values, groups)[0].value == 0.25


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 30))
def test_the_area_is_that_of_scikit_learn(seed: int, many: int, few: int) -> None:
    """With ties, which count half."""
    rng = np.random.default_rng(seed)
    high, low = rng.integers(0, 8, many).astype(float), rng.integers(0, 5, few).astype(float)
    found = auroc(high, rng.integers(0, 4, many), low, rng.integers(0, 4, few), resamples=50)
    wanted = roc_auc_score([1] * many + [0] * few, np.concatenate([high, low]))
    assert found.value == pytest.approx(wanted)
    assert 0 <= found.low <= found.high <= 1


def test_a_state_that_is_no_number_is_farther_than_any() -> None:
    """A detector that let it pass would be worth little."""
    nan = np.full(5, np.nan)
    assert auroc(nan, np.arange(5), np.arange(5.0), np.arange(5), resamples=0).value == 1


def test_an_area_of_chance_has_one_half_in_its_interval() -> None:
    """Nothing is detected where both sides are the same."""
    rng = np.random.default_rng(1)
    found = auroc(rng.random(60), np.arange(60), rng.random(300), np.arange(300))
    assert found.low < 0.5 < found.high


def test_scores_without_fault_have_some_ece_on_few_rows_and_less_on_many() -> None:
    """An ECE of 0.05 on 100 rows is no fault; the figure says what to compare with."""
    scores, _ = predictions(4000)
    few, many = (perfect_ece(scores[:n], np.arange(n)) for n in (100, 4000))
    assert 0.05 < few < 0.15
    assert many < 0.02
    rng = np.random.default_rng(0)
    labels = [rng.choice(4, p=row) for row in scores]
    assert report(scores, labels, range(4000), resamples=0).ece.value == pytest.approx(
        many, abs=0.01
    )


def test_rows_that_share_their_label_count_as_few() -> None:
    """Ten states of a reply are one label."""
    scores, _ = predictions(100)
    once = perfect_ece(scores, np.arange(100))
    again = perfect_ece(np.repeat(scores, 10, axis=0), np.repeat(np.arange(100), 10))
    assert again == pytest.approx(once, rel=0.1)
