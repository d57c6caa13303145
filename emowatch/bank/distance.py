"""How unlike the states of its calibration the states are that a bank is given.

Knows tensors and offsets; nothing of models, files or scores.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DISTANCE_SHAPES = {
    "state_mean": "bins d_model",
    "state_scale": "bins d_model",
    "state_factors": "d_model factors",
}
"""Tensors of the distance with their axes, as stored in a bank file."""
MAX_FACTORS = 256


class StateDistance:
    """Mahalanobis distance under a Gaussian of a few directions, in units of its limit.

    With ``c = (x - mean) * scale`` its square is ``c·c - |c F|²``: probabilistic PCA (Tipping &
    Bishop 1999), where `F` are the directions in which states vary more than elsewhere, shortened
    so that what lies along them counts less. Mean and scale are those of the offset's bin, and
    the scale is such that 1 is the limit above which a bank abstains.
    """

    def __init__(self, tensors: Mapping[str, Tensor], bins: Sequence[int]) -> None:
        """Build it from stored tensors, named and shaped as in `DISTANCE_SHAPES`."""
        self._bins = tuple(bins)
        self._scale = tensors["state_scale"].float()  # [bins, d_model]
        self._shift = -tensors["state_mean"].float() * self._scale
        self._factors = tensors["state_factors"].float()
        self._edges = torch.tensor(self._bins[1:])

    def to(self, device: torch.device) -> StateDistance:
        """Return this on a device; itself if it is there already."""
        if self._scale.device == device:
            return self
        moved = object.__new__(StateDistance)
        moved.__dict__ = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in self.__dict__.items()
        }
        return moved

    def of(self, states: Tensor, offset: int | Tensor) -> Tensor:
        """Return the distances ``[rows]`` in float32; a state that is no number has none either.

        Args:
            states: ``[rows, d_model]`` at the bank's primary layer, of any float dtype.
            offset: one for all rows, or ``[rows]``.
        """
        place: int | Tensor = 0
        if len(self._bins) > 1:
            place = (
                bisect_right(self._bins, offset) - 1
                if isinstance(offset, int)
                else torch.bucketize(offset, self._edges, right=True)
            )
        centred = torch.addcmul(self._shift[place], states.float(), self._scale[place])
        along = centred @ self._factors
        squared = centred.square().sum(-1) - along.square().sum(-1)
        return squared.clamp_(min=0).sqrt_()
