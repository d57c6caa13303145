"""Where heads lie that were fitted to labels in another order, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from emowatch.studies.nulls import SHARE, spread_of
from emowatch.studies.probing import fit_shuffled, read
from emowatch.studies.setting import Setting
from emowatch.workshop.metrics import Estimate
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.preparation import rows_of

SHUFFLES = 10
"""Orders of the labels."""


def shuffled_accuracy(
    setting: Setting, options: TrainOptions, layers: Sequence[int], count: int = SHUFFLES
) -> dict[int, Estimate]:
    """Measure balanced accuracy on the test texts: for each layer the mean over `count` orders, and
    where 95 % of further ones would lie. Layers are left out where one order tells no spread."""
    prepared, activations, _ = read(setting, setting.test, options)
    rows = rows_of(setting.test, prepared, activations, layers)
    found = [
        balanced_accuracy(heads.scores(rows.states, rows.offsets).argmax(-1), rows.labels)
        for heads in fit_shuffled(setting, options, count, layers)
    ]
    by_layer = np.array(found).reshape(count, len(layers)).T
    spreads = {
        layer: spread_of(accuracies, SHARE)
        for layer, accuracies in zip(layers, by_layer, strict=True)
    }
    return {layer: spread for layer, spread in spreads.items() if spread is not None}


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> list[float]:
    """Average recall over the labels that are there, for predictions ``[layers, rows]``."""
    hits = (predicted == labels).double()
    recalls = [hits[:, labels == label].mean(1) for label in labels.unique()]
    accuracy: list[float] = torch.stack(recalls).mean(0).tolist()
    return accuracy
