"""Sum, cap and apply what plugins ask to be added to the residual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import UsageError
from emowatch.records import Steering

MAX_STRENGTH = 16.0
"""Largest strength of the sum per layer and row, in units of the residual's RMS. Paper C
steers with 8; past twice that a model speaks gibberish."""


def resolve(wish: Steering, banks: Sequence[ProbeBank], n_layers: int, d_model: int) -> Tensor:
    """Turn a wish into a vector ``[d_model]``: unit direction times strength.

    Raises:
        UsageError: for a layer that cannot be steered, a direction of the wrong width, or a
            label that no bank knows at that layer.
    """
    if not 0 <= wish.layer < n_layers:
        raise UsageError(
            f"Could not steer at layer {wish.layer}: layers 0 to {n_layers - 1} can be steered."
        )
    if not np.isfinite(wish.strength):
        raise UsageError(f"Could not steer with strength {wish.strength}.")
    if isinstance(wish.direction, str):
        owners = [bank for bank in banks if wish.direction in bank.card.labels]
        if not owners:
            known = sorted({label for bank in banks for label in bank.card.labels})
            raise UsageError(
                f"Could not steer towards {wish.direction!r}: no bank here has that label; "
                f"there are {', '.join(known)}."
            )
        return owners[0].direction(wish.direction, wish.layer) * wish.strength
    vector = torch.tensor(np.asarray(wish.direction, dtype=np.float32))
    if vector.shape != (d_model,) or not bool(torch.isfinite(vector).all()):
        raise UsageError(
            f"Could not steer with a direction of shape {tuple(vector.shape)}: finite numbers of "
            f"shape ({d_model},) are needed."
        )
    return torch.nn.functional.normalize(vector, dim=0) * wish.strength


def combine(wishes: Mapping[tuple[int, int], Sequence[Tensor]], rows: int) -> dict[int, Tensor]:
    """Sum wishes per ``(layer, row)`` and cap each sum.

    Returns:
        For each layer that is steered, ``[rows, d_model]`` in units of the residual's RMS.
    """
    summed: dict[int, Tensor] = {}
    for (layer, row), vectors in wishes.items():
        total = torch.stack(list(vectors)).sum(0)
        norm = float(total.norm())
        if norm > MAX_STRENGTH:
            total *= MAX_STRENGTH / norm
        if layer not in summed:
            summed[layer] = torch.zeros(rows, total.shape[0])
        summed[layer][row] = total
    return summed
