"""Do emotion directions persist more than any direction does?

Neighbouring tokens have states that are alike in every direction, and more so where the states vary
most. So each emotion's direction is held against random directions along which the states vary just
as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Doubles = NDArray[np.float64]
RANDOM = 20
"""Random directions for each emotion."""
STEPS = 60
"""Halvings of the interval in which an exponent is looked for."""
EXPONENTS = (-20.0, 20.0)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the pairs of states of one lag, by reply, for each direction."""

    product: Doubles
    """``[replies, directions]``."""
    first: Doubles
    second: Doubles

    def correlation(self, draws: Doubles) -> Doubles:
        """Correlate under each resample ``[1 + resamples, directions]``."""
        scale = np.sqrt((draws @ self.first) * (draws @ self.second))
        found: Doubles = (draws @ self.product) / np.maximum(scale, 1e-12)
        return found


def matched_directions(
    directions: Tensor, covariance: Tensor, *, count: int = RANDOM, seed: int = 0
) -> Tensor:
    """Draw unit directions along which states vary as much as along given ones.

    A random direction in the basis of the principal components is tilted towards those of large or
    small variance, by a power of the variance, until its own variance fits; it rises with the power
    throughout, so that halving an interval finds it.

    Args:
        directions: ``[labels, d_model]``, of length 1.
        covariance: ``[d_model, d_model]`` of the states.
        count: how many for each.
        seed: of the draw.

    Returns:
        ``[labels, count, d_model]``, of length 1.
    """
    values, basis = torch.linalg.eigh(covariance.double())
    values = values.clamp(min=float(values.max()) * 1e-9)
    target = torch.einsum(
        "ld,de,le->l", directions.double(), covariance.double(), directions.double()
    )
    generator = torch.Generator().manual_seed(seed)
    shape = (len(directions), count, len(values))
    squares = torch.randn(shape, generator=generator, dtype=torch.float64)
    signs, logs = squares.sign(), values.log()
    sizes = squares.abs().clamp(min=1e-12).log() * 2  # of squared parts, as logarithms
    low, high = (torch.full(shape[:2], end, dtype=torch.float64) for end in EXPONENTS)
    for _ in range(STEPS):
        middle = (low + high) / 2
        shares = (sizes + middle[..., None] * logs).softmax(-1)
        above = (shares * values).sum(-1) > target[:, None]
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    parts = (sizes + low[..., None] * logs).softmax(-1).sqrt() * signs
    return nn.functional.normalize(parts @ basis.T, dim=-1).float()


def lagged(projected: Doubles, alive: NDArray[np.bool_], lag: int) -> Moments:
    """Sum over pairs of states of a reply that lie `lag` tokens apart, offset 0 left out.

    Args:
        projected: ``[replies, offsets, directions]``, the mean of each offset taken off.
        alive: ``[replies, offsets]``.
        lag: in tokens.
    """
    both = (alive[:, 1 + lag :] & alive[:, 1 : alive.shape[1] - lag])[..., None]
    early = np.where(both, projected[:, 1 : projected.shape[1] - lag], 0.0)
    late = np.where(both, projected[:, 1 + lag :], 0.0)
    return Moments(
        np.einsum("rkd,rkd->rd", early, late),
        np.einsum("rkd,rkd->rd", early, early),
        np.einsum("rkd,rkd->rd", late, late),
    )
