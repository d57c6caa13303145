"""The controller on plants whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emowatch.control import Limits, Loop, margin
from emowatch.control.tuning import gains

SLOPE, BASE = 0.17, 0.15


def run(loop: Loop, steps: int = 200, slope: float = SLOPE, noise: float = 0.0) -> np.ndarray:
    """Let a loop drive ``score = BASE + slope · strength``; return the scores."""
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(steps):
        score = BASE + slope * loop.strength + noise * rng.normal()
        scores.append(score)
        loop.take(score)
    return np.array(scores)


def test_the_integral_brings_the_score_to_its_set_point() -> None:
    """Without an error that stays."""
    kp, ki = gains(SLOPE)
    scores = run(Loop(0.4, kp, ki, Limits()))
    assert scores[30:] == pytest.approx(0.4, abs=1e-3)
    assert scores.max() < 0.45  # and does not shoot far over it


def test_proportional_control_alone_stalls_short_of_it() -> None:
    """By the share that theory tells: 1 / (1 + kp · slope)."""
    kp = 0.8 / SLOPE
    scores = run(Loop(0.4, kp, 0.0, Limits(slew=10)))
    assert 0.4 - scores[-1] == pytest.approx((0.4 - BASE) / (1 + 0.8), abs=1e-3)


def test_noise_of_single_tokens_leaves_the_mean_alone() -> None:
    """Scores of tokens jump; their mean over a reply is what is kept."""
    kp, ki = gains(SLOPE)
    scores = run(Loop(0.4, kp, ki, Limits()), steps=2_000, noise=0.3)
    assert scores[30:].mean() == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("slew", [0.25, 1.0, 10.0])
def test_a_slew_that_binds_does_not_shift_the_mean(slew: float) -> None:
    """Scores of tokens are far from symmetric: most are low, and some very high."""
    rng = np.random.default_rng(0)
    kp, ki = gains(SLOPE)
    loop, scores = Loop(0.26, kp, ki, Limits(slew=slew)), []
    for _ in range(4_000):
        mean = min(max(BASE + SLOPE * loop.strength, 0.02), 0.98)
        scores.append(rng.beta(1.2 * mean, 1.2 * (1 - mean)))
        loop.take(scores[-1])
    assert np.mean(scores[50:]) == pytest.approx(0.26, abs=0.005)


@given(
    st.floats(0, 3).map(lambda x: x / SLOPE),
    st.floats(0.01, 3).map(lambda x: x / SLOPE),
)
def test_the_margin_tells_which_gains_are_stable(kp: float, ki: float) -> None:
    """Gains below it settle, gains above it never do, without limits to hide behind."""
    found = margin(kp, ki, SLOPE)
    if abs(found - 1) < 0.05:
        return  # too near to tell within so many steps
    free = Limits(most=math.inf, slew=math.inf)
    scores = run(Loop(0.4, kp, ki, free), steps=4_000)
    settled = bool(np.abs(scores[-50:] - 0.4).max() < 1e-3)
    assert settled == (found > 1)


def test_the_tuners_gains_have_the_margin_that_is_promised() -> None:
    """Five times as much would be the edge."""
    for slope in (0.01, 0.17, 3.0):
        assert margin(*gains(slope), slope) == pytest.approx(5.0)


def test_a_slope_the_wrong_way_has_no_margin() -> None:
    """A positive feedback is never stable."""
    assert margin(0.1, 1.0, -0.2) == 0
    assert margin(0.1, 1.0, 0.0) == 0
    assert margin(0.0, 0.0, 0.2) == 0


@given(st.lists(st.floats(0, 1), max_size=60))
def test_limits_are_kept_whatever_the_scores(scores: list[float]) -> None:
    """Largest strength, slew and budget."""
    limits = Limits(most=2.0, slew=0.5, budget=20.0)
    loop = Loop(0.5, 3.0, 9.0, limits)
    before, given_ = 0.0, 0.0
    for score in scores:
        strength = loop.take(score)
        assert abs(strength) <= limits.most
        assert abs(strength - before) <= limits.slew + 1e-9 or strength == 0
        before = strength
        given_ += abs(strength)
    assert given_ == pytest.approx(loop.spent)
    assert given_ <= limits.budget + limits.most


def test_it_does_not_wind_up_behind_a_limit() -> None:
    """A set-point out of reach for long is given up within a few tokens once it is in reach."""
    kp, ki = gains(SLOPE)
    loop = Loop(0.4, kp, ki, Limits(most=6.0))
    for _ in range(500):
        loop.take(0.0)  # the plant is dead
    assert loop.strength == 6.0 and loop.limited > 400
    taken = 0
    while loop.take(0.9) > 3.0:
        taken += 1
    assert taken <= 6


def test_the_dead_band_leaves_small_errors_alone() -> None:
    """Nothing is done about them."""
    loop = Loop(0.4, 1.0, 5.0, Limits(dead_band=0.05))
    assert [loop.take(score) for score in (0.36, 0.44, 0.4)] == [0, 0, 0]
    assert loop.take(0.3) > 0


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_it_lets_go_where_a_score_is_no_number(broken: float) -> None:
    """And begins at rest again."""
    loop = Loop(0.5, 1.0, 2.0, Limits())
    for _ in range(5):
        loop.take(0.1)
    assert loop.strength > 0
    assert loop.take(broken) == 0
    assert loop.take(0.1) == Loop(0.5, 1.0, 2.0, Limits()).take(0.1)


def test_it_lets_go_for_good_when_its_budget_is_spent() -> None:
    """However far from the set-point."""
    loop = Loop(0.9, 0.0, 5.0, Limits(slew=1.0, budget=10.0))
    strengths = [loop.take(0.0) for _ in range(30)]
    assert loop.is_spent
    spent = strengths.index(0.0)
    assert not any(strengths[spent:])
