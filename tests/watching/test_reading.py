"""Reading: the way of scores to the host changes no bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emowatch.watching.reading import fetch, fetch_in_one_copy


def test_one_copy_brings_the_same_bits_as_none() -> None:
    """Accelerators take another way than CPUs; whole numbers travel as bits of floats there."""
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(13, 3, 7, generator=generator), torch.rand(1, 3, 2, generator=generator)]
    scores[0][0, 0, 0] = torch.nan
    numbers = [torch.tensor([[5], [0], [151_935]]), torch.tensor([1, 0, 1])]
    direct, copied = fetch(scores, numbers), fetch_in_one_copy(scores, numbers)
    for one, other in zip(direct[0], copied[0], strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype == np.float32
        np.testing.assert_array_equal(one.view(np.int32), other.view(np.int32))
    assert [n.tolist() for n in direct[1]] == [n.tolist() for n in copied[1]]
    assert direct[1][0].tolist() == [5, 0, 151_935]


def test_scores_on_the_host_cannot_be_written_to() -> None:
    """Every plugin sees the same array."""
    (scores,), _ = fetch([torch.rand(2, 1, 3)], [])
    with pytest.raises(ValueError, match="read-only"):
        scores[0, 0] = 1
