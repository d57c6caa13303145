"""Weights that make the replies that are left stand for all."""

from __future__ import annotations

import numpy as np
import pytest

from emowatch.studies.persistence.survival import effective_number, survival_weights

N = 4000


def test_the_mean_of_all_comes_back_from_those_that_are_left() -> None:
    """Of two kinds of replies one ends four times as fast; weighted, both count as at first."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, N)
    lengths = np.minimum(rng.geometric(np.where(kind == 1, 0.08, 0.02)), 60)
    weights = survival_weights(lengths, kind[:, None].astype(float), most=60)
    left = lengths > 20
    assert kind[left].mean() < 0.3  # without weights: mostly the slow kind
    weighted = np.average(kind[left], weights=weights[left, 20])
    assert weighted == pytest.approx(0.5, abs=0.05)


def test_replies_that_end_at_random_weigh_the_same() -> None:
    """What is known says nothing of the end, so nothing is corrected."""
    rng = np.random.default_rng(1)
    lengths = np.minimum(rng.geometric(0.05, N), 40)
    known = rng.normal(size=(N, 1))
    weights = survival_weights(lengths, known, most=40)
    here = weights[lengths > 15, 15]
    assert here.std() < 0.1


def test_a_reply_that_was_cut_off_did_not_end() -> None:
    """All run into the limit: nobody dropped out, and all weigh 1."""
    lengths = np.full(50, 8)
    weights = survival_weights(lengths, np.arange(50.0)[:, None], most=8)
    assert weights == pytest.approx(np.ones((50, 8)))


def test_ended_replies_weigh_nothing_and_the_others_1_in_the_mean() -> None:
    """At each offset, so that counts stay what they are."""
    lengths = np.array([1, 2, 3, 4, 5, 6])
    weights = survival_weights(lengths, np.arange(6.0)[:, None], most=10)
    for place in range(6):
        assert (weights[lengths <= place, place] == 0).all()
        assert weights[lengths > place, place].mean() == pytest.approx(1)


def test_unequal_weights_are_worth_fewer_replies() -> None:
    """Kish: equal weights are worth their number, one heavy one little more than 1."""
    assert effective_number(np.ones((10, 1)))[0] == pytest.approx(10)
    heavy = np.array([[100.0], *[[1.0]] * 9])
    assert 1 < effective_number(heavy)[0] < 1.3
