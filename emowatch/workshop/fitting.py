"""Fit heads to prepared rows, choose among layers, calibrate; all on training and validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emowatch.bank.heads import Heads
from emowatch.errors import TrainingError
from emowatch.labels import NEUTRAL
from emowatch.workshop.calibration import OFFSET_BINS, fit_temperatures
from emowatch.workshop.corpora import Corpus, balance, class_weights
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.preparation import Report, Rows
from emowatch.workshop.presets import preset
from emowatch.workshop.training import HeadTrainer, directions


@dataclass(frozen=True, slots=True)
class Fitted:
    tensors: dict[str, Tensor]
    primary: int
    """Place of the primary layer."""
    position: int
    """Place of the chosen token position."""
    bins: tuple[int, ...]
    epochs: int
    l2: list[float]
    """Penalty of each layer's head where heads were solved; else empty."""
    validation: list[float]
    """Balanced accuracy per layer at the chosen position."""


def fit_heads(
    rows: Rows,
    labels: Tensor,
    splits: Mapping[str, np.ndarray[Any, Any]],
    corpus: Corpus,
    layers: Sequence[int],
    options: TrainOptions,
    report: Report,
    position: int | None = None,
) -> Fitted:
    """Fit all layers, choose the primary one on validation, calibrate on validation."""
    n_labels = len(corpus.labels)
    changes = {"seed": options.seed} | ({"hidden": options.hidden} if options.hidden else {})
    along = None
    if options.directions is not None:
        named = torch.from_numpy(options.directions.at(layers))  # [layers, directions, d_model]
        along = named.repeat(rows.states.shape[0] // len(layers), 1, 1)
    trainer = HeadTrainer(options.head, preset(options.preset, **changes), along)
    present = set(rows.by_example)
    train = [i for i in splits["train"].tolist() if i in present]
    held = [i for i in splits["validation"].tolist() if i in present]
    if not train or not held:
        raise TrainingError("Could not fit heads: too few examples for a validation split.")
    of_example = torch.full((len(corpus.examples),), -1)
    of_example[rows.examples] = labels
    train_labels = of_example[torch.tensor(train)].numpy()
    for number, label in enumerate(corpus.labels):
        if number not in train_labels:
            raise TrainingError(
                f"Could not fit heads: no training example of {label!r} is left, as texts past "
                "the model's context and empty replies are put aside. Give more of that class."
            )
    neutral = corpus.labels.index(NEUTRAL) if NEUTRAL in corpus.labels else None
    weights = None
    if options.balancing == "resample":
        picked = balance(train_labels, neutral=neutral, seed=options.seed)
        examples = [train[i] for i in picked.tolist()]
    else:
        examples = train
        weights = torch.tensor(class_weights(train_labels, n_labels))
    starts = torch.tensor([int(rows.by_example[i][0]) for i in examples])
    counts = torch.tensor([len(rows.by_example[i]) for i in examples])
    validation = torch.cat([rows.by_example[i] for i in held])
    trainer.fit(
        rows.states,
        labels,
        starts,
        validation,
        counts=counts,
        offsets=rows.offsets,
        class_weights=weights,
        n_labels=n_labels,
        progress=lambda done, total: report("fitting heads", done, total),
    )
    learned = torch.cat([rows.by_example[i] for i in sorted(set(examples))])
    return _choose(trainer, rows, labels, validation, learned, layers, options, n_labels, position)


def _choose(
    trainer: HeadTrainer,
    rows: Rows,
    labels: Tensor,
    validation: Tensor,
    train: Tensor,
    layers: Sequence[int],
    options: TrainOptions,
    n_labels: int,
    position: int | None,
) -> Fitted:
    """Keep the best position, unless one is given, and its best layer; calibrate on validation."""
    stacks = rows.states.shape[0]
    ones = torch.ones(stacks, 1)
    last = int(rows.offsets.max())
    heads = Heads(options.head, trainer.tensors_, ones, (0,), last)
    offsets = rows.offsets[validation]
    head_logits = heads.head_logits(rows.states[:, validation], offsets)  # [stacks, rows, labels]
    accuracy = _balanced_accuracy(head_logits.argmax(-1), labels[validation], n_labels)
    n_layers = len(layers)
    by_position = accuracy.reshape(-1, n_layers)  # [positions, layers]
    if position is None:
        position = int(by_position.max(1).values.argmax())
    mine = slice(position * n_layers, (position + 1) * n_layers)
    bins = tuple(b for b in OFFSET_BINS if b <= last)
    tensors = {name: tensor[mine].contiguous() for name, tensor in trainer.tensors_.items()}
    tensors["temperature"] = fit_temperatures(head_logits[mine], labels[validation], offsets, bins)
    tensors["direction"] = directions(rows.states[mine], labels, train, n_labels)
    return Fitted(
        tensors=tensors,
        primary=int(by_position[position].argmax()),
        position=position,
        bins=bins,
        epochs=trainer.epochs_,
        l2=trainer.l2_[mine].tolist(),
        validation=[round(float(a), 4) for a in by_position[position]],
    )


def _balanced_accuracy(predicted: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """Per stack, from predictions ``[stacks, rows]``."""
    hits = (predicted == labels).float()
    recalls = [hits[:, labels == k].mean(1) for k in range(n_labels) if bool((labels == k).any())]
    return torch.stack(recalls).mean(0)
