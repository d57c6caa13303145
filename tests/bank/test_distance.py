"""Distance: a state like those of the calibration is near, any other far, at its own offset."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emowatch.bank.distance import StateDistance
from emowatch.workshop.uncertainty import fit_distance

BINS = (0, 1, 8)


def made(bins: tuple[int, ...] = BINS, width: int = 6, factors: int = 2) -> StateDistance:
    """Draw a distance at random."""
    generator = torch.Generator().manual_seed(3)
    return StateDistance(
        {
            "state_mean": torch.randn(len(bins), width, generator=generator),
            "state_scale": torch.rand(len(bins), width, generator=generator) + 0.5,
            "state_factors": torch.linalg.qr(torch.randn(width, factors, generator=generator))[0],
        },
        bins,
    )


def states(rows: int = 5, width: int = 6) -> Tensor:
    """Draw states."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 511, 5000])
def test_one_offset_for_all_rows_is_the_same_offset_for_each(offset: int) -> None:
    """A step has one offset, a prompt several; the score must not hang on how it was read."""
    distance, rows = made(), states()
    each = distance.of(rows, torch.full((len(rows),), offset))
    assert torch.allclose(distance.of(rows, offset), each, atol=1e-6)


def test_rows_do_not_see_each_other() -> None:
    """A batch changes nothing."""
    distance, rows = made(), states()
    offsets = torch.tensor([0, 1, 7, 8, 90])
    together = distance.of(rows, offsets)
    alone = [float(distance.of(rows[n : n + 1], int(offsets[n]))) for n in range(len(rows))]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


def test_the_mean_of_a_bin_is_at_no_distance_there_and_at_some_elsewhere() -> None:
    """States at the last prompt token are nothing like those in the middle of a reply."""
    distance = made()
    mean = -distance._shift[1] / distance._scale[1]
    assert float(distance.of(mean[None], 3)) == pytest.approx(0, abs=1e-3)
    assert float(distance.of(mean[None], 0)) > 0.5


def test_it_is_the_mahalanobis_distance_of_the_gaussian_that_was_fitted() -> None:
    """Few factors stand for a whole covariance; the sum must be that of its inverse."""
    rows = torch.randn(400, 16, generator=torch.Generator().manual_seed(1))
    rows[:, :4] *= torch.tensor([9.0, 5.0, 4.0, 3.0])
    found = fit_distance(rows, torch.zeros(400, dtype=torch.long), range(400), (0,))
    scale, factors = found["state_scale"][0], found["state_factors"]
    precision = torch.diag(scale) @ (torch.eye(16) - factors @ factors.T) @ torch.diag(scale)
    centred = rows - found["state_mean"][0]
    wanted = (centred @ precision * centred).sum(-1).sqrt()
    distances = StateDistance(found, (0,)).of(rows, 0)
    assert torch.allclose(distances, wanted, rtol=1e-3)
    assert float(distances.square().mean()) == pytest.approx(16, rel=0.05)


def test_a_state_that_is_no_number_has_no_distance() -> None:
    """Zero would say that all is well."""
    rows = states()
    rows[1, 2] = torch.nan
    rows[2, 0] = torch.inf
    found = made().of(rows, 0)
    assert torch.isfinite(found).tolist() == [True, False, False, True, True]


def test_half_precision_states_are_measured_in_float32() -> None:
    """Squares of large states overflow float16."""
    rows = (states() * 300).half()
    found = made().of(rows, 0)
    assert found.dtype == torch.float32
    assert torch.allclose(found, made().of(rows.float(), 0))


def test_it_stays_where_it_was_moved() -> None:
    """Heads and distance live where the states are."""
    distance = made()
    assert distance.to(torch.device("cpu")) is distance
    moved = distance.to(torch.device("meta"))
    assert moved.of(torch.empty(2, 6, device="meta"), 0).device.type == "meta"
