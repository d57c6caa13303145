"""Fit heads at more layers than fit in memory: some layers at a time.

Heads of different layers share the order of their rows and the random numbers of the fit, and
nothing else, so parts give what one fit of all layers gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from emowatch.workshop.activations import Activations
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.fitting import Fitted, fit_heads
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.preparation import Prepared, Report, rows_of, shuffled_labels


def fit_in_parts(
    corpus: Corpus,
    prepared: Prepared,
    activations: Activations,
    splits: Mapping[str, np.ndarray[Any, Any]],
    options: TrainOptions,
    at_once: int,
    report: Report,
) -> tuple[Fitted, Fitted | None]:
    """Fit heads at all layers of `activations`, states of `at_once` layers in memory.

    Returns:
        The heads, and those fitted to shuffled labels where the options ask for them. Tensors
        are ``[layers, …]``.

    Raises:
        TrainingError: if an example of some class, or a side of the split, is missing.
    """
    layers = activations.layers
    parts = [layers[first : first + at_once] for first in range(0, len(layers), at_once)]
    whole = rows_of(corpus, prepared, activations) if len(parts) == 1 else None

    def fit(number: int, shuffled: bool, position: int | None) -> Fitted:
        rows = rows_of(corpus, prepared, activations, parts[number]) if whole is None else whole
        labels = shuffled_labels(rows, options.seed) if shuffled else rows.labels

        def told(step: str, done: int, total: int) -> None:
            report(step, number * total + done, len(parts) * total)

        return fit_heads(rows, labels, splits, corpus, parts[number], options, told, position)

    def fit_all(shuffled: bool, position: int | None = None) -> Fitted:
        found = [fit(number, shuffled, position) for number in range(len(parts))]
        best = max(found, key=lambda part: (max(part.validation), -part.position)).position
        for number, part in enumerate(found):
            if part.position != best:  # each part chose for itself
                found[number] = fit(number, shuffled, best)
        return found[0] if len(found) == 1 else _joined(found)

    real = fit_all(shuffled=False)
    return real, fit_all(shuffled=True, position=real.position) if options.shuffled else None


def _joined(parts: Sequence[Fitted]) -> Fitted:
    """Join parts, all at one position, in the order of their layers."""
    validation = [accuracy for part in parts for accuracy in part.validation]
    return replace(
        parts[0],
        tensors={
            name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors
        },
        primary=validation.index(max(validation)),
        epochs=max(part.epochs for part in parts),
        l2=[penalty for part in parts for penalty in part.l2],
        validation=validation,
    )
