"""The heads of one bank: all layers in one batched pass.

Knows tensors and offsets; nothing of models, files or labels' names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

HeadKind = Literal["linear", "mlp", "offset-mlp"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
MAX_OFFSET = 512
"""Largest offset that a head tells apart; later ones count as this (paper A, section on
persistence: offsets 0 to 512)."""

SHAPES: Mapping[HeadKind, Mapping[str, str]] = {
    "linear": {"weight": "layers d_model labels", "bias": "layers labels"},
    "mlp": {
        "weight_in": "layers d_model hidden",
        "bias_in": "layers hidden",
        "weight_out": "layers hidden labels",
        "bias_out": "layers labels",
    },
    "offset-mlp": {
        "weight_in": "layers d_model hidden",
        "bias_in": "layers hidden",
        "weight_out": "layers hidden labels",
        "bias_out": "layers labels",
        "offset_embedding": "layers offsets embedding",
        "weight_offset": "layers embedding hidden",
    },
}
"""Tensors of each kind with their axes, as stored in a bank file."""


class Heads:
    """Small classifiers for several layers that read all of them in one pass.

    `offset-mlp` concatenates a learned embedding of the offset to the state (paper A). Since
    the first layer is linear, the embedding's part is folded here into a table of biases
    ``[layers, offsets, hidden]``: one row look-up per token.
    """

    def __init__(
        self,
        kind: HeadKind,
        tensors: Mapping[str, Tensor],
        temperatures: Tensor,
        bins: Sequence[int],
        last_offset: int = MAX_OFFSET,
    ) -> None:
        """Build heads from stored tensors.

        Args:
            kind: what the tensors are.
            tensors: named and shaped as in `SHAPES`.
            temperatures: ``[layers, bins]``, all positive.
            bins: first offset of each calibration bin, ascending from 0.
            last_offset: largest offset seen in training; later ones count as this one, since
                their embeddings were never learned.
        """
        wide = {name: tensor.float() for name, tensor in tensors.items()}
        self.kind = kind
        self.bins = tuple(bins)
        self._first = wide["weight"] if kind == "linear" else wide["weight_in"]
        self._second = None if kind == "linear" else wide["weight_out"]
        self._last_bias = wide["bias" if kind == "linear" else "bias_out"][:, None, :]
        self._table: Tensor | None = None  # [layers, offsets or 1, hidden]
        if kind == "mlp":
            self._table = wide["bias_in"][:, None, :]
        elif kind == "offset-mlp":
            folded = wide["offset_embedding"] @ wide["weight_offset"]
            folded[:, last_offset + 1 :] = folded[:, min(last_offset, MAX_OFFSET), None]
            self._table = folded + wide["bias_in"][:, None, :]
        inverse = (1.0 / temperatures.float())[..., None]  # [layers, bins, 1]
        last = self._first if self._second is None else self._second
        self._calibrated: Tensor | None = None
        """The last layer over the one temperature of each head, where it has no more."""
        if len(self.bins) == 1:
            self._calibrated = last * inverse
            self._calibrated_bias = self._last_bias * inverse
        else:
            by_offset = torch.bucketize(
                torch.arange(MAX_OFFSET + 1), torch.tensor(self.bins[1:]), right=True
            )
            self._inverse_temperature = inverse[:, by_offset]  # [layers, MAX_OFFSET + 1, 1]

    def to(self, device: torch.device) -> Heads:
        """Return these heads on a device; themselves if they are there already."""
        if self._first.device == device:
            return self
        moved = object.__new__(Heads)
        moved.__dict__ = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in self.__dict__.items()
        }
        return moved

    def only(self, places: Sequence[int]) -> Heads:
        """Return the heads of some layers, by their place in this stack."""
        index = torch.tensor(list(places), device=self._first.device)
        chosen = object.__new__(Heads)
        chosen.__dict__ = {
            name: value[index].contiguous() if isinstance(value, Tensor) else value
            for name, value in self.__dict__.items()
        }
        return chosen

    def head_logits(self, states: Tensor, offset: int | Tensor) -> Tensor:
        """Return head logits ``[layers, rows, labels]``, uncalibrated.

        Args:
            states: ``[layers, rows, d_model]``, of any float dtype; computed in float32.
            offset: one for all rows, or ``[rows]``; above 512 counts as 512.
        """
        last = self._first if self._second is None else self._second
        return torch.baddbmm(self._last_bias, self._features(states, offset), last)

    def _features(self, states: Tensor, offset: int | Tensor) -> Tensor:
        """Return what the last layer is given, ``[layers, rows, d_model or hidden]``."""
        if self._table is None:
            return states.float()
        bias = self._rows_of(self._table, offset)
        return torch.baddbmm(bias, states.float(), self._first).relu_()

    def scores(self, states: Tensor, offset: int | Tensor) -> Tensor:
        """Return calibrated probabilities ``[layers, rows, labels]`` in float32."""
        if self._calibrated is not None:
            features = self._features(states, offset)
            return torch.baddbmm(self._calibrated_bias, features, self._calibrated).softmax(-1)
        inverse = self._rows_of(self._inverse_temperature, offset)  # [layers, 1|rows, 1]
        return torch.softmax(self.head_logits(states, offset).mul_(inverse), dim=-1)

    @staticmethod
    def _rows_of(table: Tensor, offset: int | Tensor) -> Tensor:
        """Look up ``[layers, 1 or rows, …]`` in a table ``[layers, offsets, …]``."""
        if table.shape[1] == 1:
            return table
        last = table.shape[1] - 1
        if isinstance(offset, int):
            place = min(offset, last)
            return table[:, place : place + 1]
        return table[:, offset.clamp(max=last)]
