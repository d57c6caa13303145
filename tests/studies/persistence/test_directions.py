"""Random directions of equal variance, and correlations at a lag."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emowatch.studies.persistence.directions import lagged, matched_directions


def covariance(width: int = 24, seed: int = 0) -> torch.Tensor:
    """Make a covariance whose directions differ by a factor of thousands, as in a model."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    found: torch.Tensor = basis @ torch.diag(torch.logspace(-2, 2, width)) @ basis.T
    return found


@pytest.mark.parametrize("share", [0.02, 0.3, 0.95])
def test_states_vary_as_much_along_them(share: float) -> None:
    """From nearly the least variance that there is to nearly the most."""
    matrix = covariance()
    _, basis = torch.linalg.eigh(matrix)
    low, high = basis[:, 0], basis[:, -1]
    wanted = (1 - share) ** 0.5 * low + share**0.5 * high
    found = matched_directions(wanted[None], matrix, count=8)
    target = wanted @ matrix @ wanted
    variance = torch.einsum("cd,de,ce->c", found[0], matrix, found[0])
    assert variance.numpy() == pytest.approx(np.full(8, float(target)), rel=1e-3)
    assert found.norm(dim=-1).numpy() == pytest.approx(np.ones((1, 8)))


def test_they_are_random() -> None:
    """Neither each other's copies nor the emotion's."""
    matrix = covariance()
    direction = torch.nn.functional.normalize(torch.ones(24), dim=0)
    found = matched_directions(direction[None], matrix, count=10)[0]
    alike = (found @ found.T - torch.eye(10)).abs()
    assert alike.mean() < 0.6
    assert (found @ direction).abs().mean() < 0.6


def test_a_process_that_forgets_at_a_known_rate_is_found_to() -> None:
    """An autoregression of 0.8 has the correlation 0.8 to the power of the lag."""
    rng = np.random.default_rng(0)
    states = np.zeros((400, 60, 1))
    states[:, 0, 0] = rng.normal(size=400)
    for step in range(1, 60):
        fresh = rng.normal(size=400) * (1 - 0.8**2) ** 0.5
        states[:, step, 0] = 0.8 * states[:, step - 1, 0] + fresh
    alive = np.ones((400, 60), dtype=bool)
    for lag in (1, 2, 4):
        found = lagged(states, alive, lag).correlation(np.ones((1, 400)))
        assert found[0, 0] == pytest.approx(0.8**lag, abs=0.02)


def test_what_comes_after_the_end_is_not_counted() -> None:
    """Values behind a reply's last token may be anything."""
    rng = np.random.default_rng(1)
    states = rng.normal(size=(30, 12, 2))
    alive = np.arange(12) < rng.integers(4, 12, 30)[:, None]
    spoiled = np.where(alive[..., None], states, np.nan)
    clean, other = lagged(states, alive, 2), lagged(spoiled, alive, 2)
    assert clean.product == pytest.approx(other.product)
    assert np.isfinite(other.correlation(np.ones((1, 30)))).all()


def test_offset_0_is_left_out() -> None:
    """It belongs to the prompt."""
    states = np.ones((5, 6, 1))
    other = states.copy()
    other[:, 0] = 100.0
    alive = np.ones((5, 6), dtype=bool)
    assert lagged(states, alive, 1).product == pytest.approx(lagged(other, alive, 1).product)
