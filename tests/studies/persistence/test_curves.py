"""Curves and half-lives of made-up predictions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from emowatch.studies.persistence.curves import (
    FEWEST,
    Predictions,
    curves,
    draw,
    estimate_at,
    half_life,
    smoothing,
)

SHARP = 1e-3
"""A bandwidth that smooths nothing."""


def predictions(
    lengths: NDArray[np.int64], labels: NDArray[np.int64], accuracy: NDArray[np.float64], seed: int
) -> Predictions:
    """Guess rightly with a chance that depends on the offset, else the other of two labels."""
    rng = np.random.default_rng(seed)
    right = rng.random((len(labels), len(accuracy))) < accuracy
    predicted = np.where(right, labels[:, None], 1 - labels[:, None])
    predicted[np.arange(len(accuracy)) >= lengths[:, None]] = -1
    return Predictions(predicted, labels, np.arange(len(labels)), 2)


def steady(n: int = 40, offsets: int = 12, accuracy: float = 0.8) -> Predictions:
    """Read replies that all have the same length, equally well throughout."""
    lengths, labels = np.full(n, offsets), np.arange(n) % 2
    return predictions(lengths, labels, np.full(offsets, accuracy), seed=0)


def test_without_smoothing_a_curve_is_the_recall_at_each_offset() -> None:
    """By hand, label by label."""
    found = steady()
    drawn = curves(found, draw(found.groups, seed=0, resamples=10), bandwidth=SHARP)
    hits = found.predicted == found.labels[:, None]
    by_hand = np.stack([hits[found.labels == label].mean(0) for label in range(2)])
    assert drawn.recall[0] == pytest.approx(by_hand)
    assert drawn.accuracy[0] == pytest.approx(by_hand.mean(0))


def test_offset_0_is_never_mixed_with_others() -> None:
    """It is a token of the prompt; what smooths the rest must not touch it."""
    kernel = smoothing(8, 3.0)
    assert kernel[0].tolist() == [1, *[0] * 7] == kernel[:, 0].tolist()
    assert (kernel[1:, 1:].sum(1) > 1).all()


def test_equal_weights_change_nothing() -> None:
    """Survivorship weights of replies that all live are 1."""
    found = steady()
    draws = draw(found.groups, seed=1, resamples=20)
    plain = curves(found, draws, bandwidth=2.0)
    weighted = curves(found, draws, np.full(found.predicted.shape, 3.0), bandwidth=2.0)
    assert weighted.recall == pytest.approx(plain.recall)


def test_a_weight_counts_as_often_as_a_copy() -> None:
    """Two replies like one of weight 2."""
    predicted = np.array([[0, 0], [1, 1], [1, 1]])
    doubled = Predictions(predicted[[0, 0, 1, 2]], np.array([0, 0, 0, 1]), np.arange(4), 2)
    single = Predictions(predicted, np.array([0, 0, 1]), np.arange(3), 2)
    weights = np.array([[2.0, 2.0], [1.0, 1.0], [1.0, 1.0]])
    once = np.ones((1, 3))
    left = curves(single, once, weights, bandwidth=SHARP)
    right = curves(doubled, np.ones((1, 4)), bandwidth=SHARP)
    assert left.recall == pytest.approx(right.recall)


def test_a_head_that_always_says_the_same_knows_nothing() -> None:
    """Its recall of that label is 1, its informedness 0."""
    labels = np.arange(30) % 3
    always = Predictions(np.zeros((30, 5), dtype=np.int64), labels, np.arange(30), 3)
    found = curves(always, draw(always.groups, seed=0, resamples=10), bandwidth=1.0)
    assert (found.recall[0, 0] == 1).all()
    assert found.informedness[0] == pytest.approx(0)
    assert found.accuracy[0] == pytest.approx(1 / 3)


def test_a_group_is_resampled_as_one() -> None:
    """Copies of a message are no further evidence: the interval is that of the groups."""
    found = steady(n=20)
    copies = Predictions(
        np.repeat(found.predicted, 10, 0),
        np.repeat(found.labels, 10),
        np.repeat(found.groups, 10),
        2,
    )
    one, ten = (
        estimate_at(curves(p, draw(p.groups, seed=0), bandwidth=SHARP).accuracy, 3)
        for p in (found, copies)
    )
    assert ten.value == pytest.approx(one.value)
    assert ten.interval == pytest.approx(one.interval)


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of 100 samples some 95; 99 % of a binomial of 100 lies between 88 and 99."""
    held = 0
    for seed in range(100):
        labels = np.arange(200) % 2
        found = predictions(np.full(200, 2), labels, np.full(2, 0.7), seed)
        drawn = curves(found, draw(found.groups, seed=seed, resamples=200), bandwidth=SHARP)
        low, high = estimate_at(drawn.accuracy, 1).interval
        held += low <= 0.7 <= high
    assert 88 <= held <= 99


def test_the_reach_ends_where_a_label_has_too_few_replies() -> None:
    """The scarcest label decides."""
    labels = np.array([0] * 30 + [1] * FEWEST)
    lengths = np.array([9] * 30 + [4] * (FEWEST - 1) + [7])
    found = predictions(lengths, labels, np.full(9, 0.5), seed=0)
    assert found.counts[1].tolist() == [10, 10, 10, 10, 1, 1, 1, 0, 0]
    assert found.reach == 4
    assert steady(offsets=12).reach == 12


def test_a_half_life_is_where_half_is_gone() -> None:
    """An exponential that halves every seven tokens."""
    decay = 0.8 * 0.5 ** (np.arange(40) / 7)
    rng = np.random.default_rng(0)
    resampled = decay + rng.normal(0, 0.005, (200, 40))
    found = half_life(np.vstack([decay, resampled]))
    assert found is not None
    assert found.value == 7
    assert 5 <= found.low <= 7 <= found.high <= 9


def test_what_never_falls_to_half_is_beyond() -> None:
    """A number would be made up."""
    found = half_life(np.full((100, 20), 0.6))
    assert found is not None
    assert found.value == np.inf == found.high


def test_what_is_not_told_from_chance_has_no_half_life() -> None:
    """Half of nothing is nothing."""
    rng = np.random.default_rng(0)
    assert half_life(rng.normal(0, 0.1, (200, 20))) is None


def test_a_half_life_may_begin_at_the_first_token_of_the_reply() -> None:
    """From offset 0, a token of the prompt, to 1 much may be lost at once."""
    curve = np.array([0.9, 0.4, 0.38, 0.3, 0.19, 0.1])
    steep = np.tile(curve, (50, 1))
    from_prompt, from_reply = half_life(steep), half_life(steep, start=1)
    assert from_prompt is not None and from_reply is not None
    assert (from_prompt.value, from_reply.value) == (1, 3)
