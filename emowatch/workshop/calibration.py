"""Turn head logits into probabilities: one temperature per layer and offset bin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

OFFSET_BINS = (0, 1, 8, 32, 96, 256)
"""First offset of each bin; offset 0, the last prompt token, has a bin of its own."""
MIN_ROWS = 50
"""Rows a bin needs for a temperature of its own; below, it takes its neighbour's."""


def fit_temperatures(
    head_logits: Tensor, labels: Tensor, offsets: Tensor, bins: Sequence[int] = OFFSET_BINS
) -> Tensor:
    """Find ``[layers, bins]`` temperatures that minimise the loss, classes counting equally.

    Args:
        head_logits: ``[layers, rows, labels]`` of rows that were not fitted on.
        labels: ``[rows]``.
        offsets: ``[rows]``.
        bins: first offset of each bin.
    """
    of_bin = torch.bucketize(offsets, torch.tensor(bins[1:]), right=True)
    counts = torch.bincount(labels, minlength=head_logits.shape[-1]).clamp(min=1)
    weights = (1.0 / counts.float())[labels]
    temperatures = np.ones((head_logits.shape[0], len(bins)))
    for layer in range(head_logits.shape[0]):
        known: float | None = None
        for number in range(len(bins)):
            rows = of_bin == number
            if int(rows.sum()) >= MIN_ROWS:
                known = _temperature(head_logits[layer, rows], labels[rows], weights[rows])
            elif known is None:
                known = _temperature(head_logits[layer], labels, weights)
            temperatures[layer, number] = known
    return torch.tensor(temperatures, dtype=torch.float32)


def _temperature(head_logits: Tensor, labels: Tensor, weights: Tensor) -> float:
    def loss(log_temperature: float) -> float:
        scaled = head_logits * float(np.exp(-log_temperature))
        losses = torch.nn.functional.cross_entropy(scaled, labels, reduction="none")
        return float((losses * weights).sum() / weights.sum())

    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))
