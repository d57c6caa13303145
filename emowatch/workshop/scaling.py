"""Standardise states, and fold the standardisation into a head that then reads them raw."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from emowatch.bank.heads import HeadKind
from emowatch.errors import TrainingError


def standardisation(states: Tensor, row_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation ``[stacks, 1, d_model]`` of weighted rows.

    A dimension that is the same in all of them, as the embedding of a template's last token,
    weighs 0: it says nothing, and would say anything of a state where it differs.

    Args:
        states: ``[stacks, rows, d_model]``.
        row_weights: ``[rows]``, none negative, of sum 1.

    Raises:
        TrainingError: for states with NaN or infinity.
    """
    used = row_weights.nonzero()[:, 0]
    shares = row_weights[used]
    means, scales = [], []
    for stack in states:  # one stack at a time: a copy of all would not fit
        check_finite(stack)
        chosen = stack[used]
        mean = shares @ chosen
        deviation = (shares @ (chosen - mean).square()).sqrt()
        # By its range and not its deviation, which holds the rounding errors of the mean.
        varies = chosen.amax(0) - chosen.amin(0) > 1e-6 * (1 + mean.abs())
        means.append(mean)
        scales.append(torch.where(varies, 1 / deviation, 0.0))
    return torch.stack(means)[:, None], torch.stack(scales)[:, None]


def check_finite(states: Tensor) -> None:
    """Refuse states that are no numbers, before a factorisation fails with a sentence on minors.

    Raises:
        TrainingError: for NaN or infinity.
    """
    if not bool(torch.isfinite(states).all()):
        raise TrainingError(
            "Could not fit heads: some states are NaN or infinite. Load the model with "
            "--dtype float32, and check it with: emowatch doctor"
        )


def fold(
    weights: Mapping[str, Tensor], mean: Tensor, scale: Tensor, kind: HeadKind
) -> dict[str, Tensor]:
    """Take the standardisation into the first layer, so that heads read raw states."""
    folded = dict(weights)
    first, bias = ("weight", "bias") if kind == "linear" else ("weight_in", "bias_in")
    folded[first] = weights[first] * scale.transpose(1, 2)
    folded[bias] = weights[bias] - (mean @ folded[first])[:, 0]
    return folded
