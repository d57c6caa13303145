"""Fit the heads of all layers in one batched fit.

Each layer's head is independent: its loss, its early stopping and its best weights are its
own, and it comes out as it would alone. Starting weights, batches and dropout are drawn once
for all. Works on arrays, and knows nothing of texts or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from emowatch.bank.heads import MAX_OFFSET, HeadKind
from emowatch.errors import TrainingError, UsageError

SMALLEST_BATCH = 32
EMBEDDING = 16
"""Width of the learned offset embedding; the paper does not give one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How heads are fitted; what the paper leaves open is recorded on the card."""

    hidden: int = 64
    """Width of the hidden layer of ``mlp`` and ``offset-mlp``."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    """On the hidden layer, in training only."""
    batch: int = 256
    """Rows in a step, at most: where an epoch has few rows they are fewer, for 32 steps in it."""
    epoch_rows: int = 32_768
    """An epoch ends after so many rows, so that early stopping looks often enough; 0: never."""
    epochs: int = 40
    """At most; early stopping usually ends sooner."""
    patience: int = 4
    """Epochs without a better validation loss before a head is done; 0 turns it off."""
    warmup: float = 0.0
    """Share of the steps with rising learning rate."""
    cosine: bool = False
    """Whether the learning rate then falls to 0 along a cosine."""
    seed: int = 0


PRESETS: Mapping[str, FitOptions] = {
    "default": FitOptions(),
    # Zhang & Zhong 2025 (arXiv 2510.04064), section on the probe: one epoch, Adam, 1e-4,
    # 10 % linear warm-up, then cosine. Batch size and hidden width are not given there.
    "paper-a": FitOptions(
        learning_rate=1e-4,
        weight_decay=0.0,
        dropout=0.0,
        batch=64,
        epoch_rows=0,
        epochs=1,
        patience=0,
        warmup=0.1,
        cosine=True,
    ),
}


def preset(name: str, **changes: Any) -> FitOptions:
    """Take a named preset, with changes of its fields.

    Raises:
        UsageError: for an unknown name.
    """
    if name not in PRESETS:
        raise UsageError(f"There is no preset {name!r}: use {' or '.join(PRESETS)}.")
    return replace(PRESETS[name], **changes)


class HeadTrainer:
    """Fits one head per stack: a layer, or a layer at one token position.

    Attributes:
        tensors_: after `fit`, the heads' tensors as a bank stores them, standardisation folded in.
        validation_loss_: ``[stacks]``, of the kept weights.
        epochs_: how many epochs ran.
    """

    def __init__(self, kind: HeadKind, options: FitOptions | None = None) -> None:
        """Choose the kind of head and how to fit it."""
        self.kind = kind
        self.options = options or FitOptions()

    def fit(
        self,
        states: Tensor,
        labels: Tensor,
        train: Tensor,
        validation: Tensor,
        *,
        offsets: Tensor | None = None,
        class_weights: Tensor | None = None,
        draw: Callable[[torch.Generator], Tensor] | None = None,
        n_labels: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Fit on rows `train` and keep each stack's weights of the best validation epoch.

        Args:
            states: ``[stacks, rows, d_model]`` float32.
            labels: ``[rows]`` class numbers.
            train: row numbers to learn from, repeated as often as balancing wants.
            validation: row numbers for early stopping; classes count equally.
            offsets: ``[rows]``; needed by ``offset-mlp``.
            class_weights: ``[labels]``, the alternative to balanced rows.
            draw: gives the rows of one epoch instead of `train`, as one random offset of
                each reply.
            n_labels: number of classes, where the last may be absent from `labels`.
            progress: called with epochs done and epochs at most.

        Raises:
            TrainingError: for states with NaN or infinity, or an empty split.
        """
        if len(train) == 0 or len(validation) == 0:
            raise TrainingError(
                f"Could not fit heads on {len(train)} training and {len(validation)} validation "
                "rows: both must hold some. Give more data."
            )
        options = self.options
        generator = torch.Generator().manual_seed(options.seed)
        mean, scale = _standardisation(states, train)
        classes = n_labels or int(labels.max()) + 1
        where = torch.zeros(states.shape[1], dtype=torch.long) if offsets is None else offsets
        where = where.clamp(max=MAX_OFFSET)
        weights = self._new(states.shape[0], states.shape[2], classes, generator)
        per_epoch = min(len(train), options.epoch_rows or len(train))
        # Measured: with 300 and 1,500 rows, full batches cost 2 to 3 points of accuracy.
        batch_rows = min(options.batch, max(SMALLEST_BATCH, per_epoch // 32))
        steps = max(1, math.ceil(per_epoch / batch_rows))
        optimiser = torch.optim.AdamW(
            weights.values(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        balanced = _balanced_weights(labels[validation], classes)
        best = {name: tensor.detach().clone() for name, tensor in weights.items()}
        best_loss = torch.full((states.shape[0],), math.inf)
        waited = torch.zeros(states.shape[0], dtype=torch.long)
        self.epochs_ = 0
        for epoch in range(options.epochs):
            rows = train if draw is None else draw(generator)
            rows = rows[torch.randperm(len(rows), generator=generator)[:per_epoch]]
            for number, batch in enumerate(rows.split(batch_rows)):
                for group in optimiser.param_groups:
                    group["lr"] = self._rate(epoch * steps + number, options.epochs * steps)
                folded = _fold(weights, mean, scale, self.kind)
                logits = self._forward(folded, states[:, batch], where[batch], generator)
                loss = _losses(logits, labels[batch], class_weights).sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            self.epochs_ = epoch + 1
            found = self._validate(
                weights, states, labels, where, validation, mean, scale, balanced
            )
            better = (found < best_loss - 1e-4) & (waited < options.patience)
            if options.patience == 0:
                better = torch.ones_like(better)
            for name, tensor in weights.items():
                best[name][better] = tensor.detach()[better]
            best_loss = torch.where(better, found, best_loss)
            waited = torch.where(better, 0, waited + 1)
            over = bool(options.patience) and bool((waited >= options.patience).all())
            if progress is not None:
                progress(options.epochs if over else epoch + 1, options.epochs)
            if over:
                break
        self.validation_loss_ = best_loss
        self.tensors_ = _fold(best, mean, scale, self.kind)
        return self

    def _new(
        self, stacks: int, width: int, classes: int, generator: torch.Generator
    ) -> dict[str, nn.Parameter]:
        """Draw starting weights, the same for each stack; in units of standardised states."""

        def draw(*shape: int, scale: float) -> nn.Parameter:
            one = torch.randn(shape, generator=generator) * scale
            return nn.Parameter(one.repeat(stacks, *[1] * len(shape)))

        if self.kind == "linear":
            return {
                "weight": draw(width, classes, scale=1e-3),
                "bias": draw(classes, scale=0.0),
            }
        hidden = self.options.hidden
        weights = {
            "weight_in": draw(width, hidden, scale=width**-0.5),
            "bias_in": draw(hidden, scale=0.0),
            "weight_out": draw(hidden, classes, scale=hidden**-0.5),
            "bias_out": draw(classes, scale=0.0),
        }
        if self.kind == "offset-mlp":
            weights["offset_embedding"] = draw(MAX_OFFSET + 1, EMBEDDING, scale=0.1)
            weights["weight_offset"] = draw(EMBEDDING, hidden, scale=EMBEDDING**-0.5)
        return weights

    def _forward(
        self,
        weights: Mapping[str, Tensor],
        inputs: Tensor,
        offsets: Tensor,
        dropout: torch.Generator | None = None,
    ) -> Tensor:
        """Head logits ``[stacks, rows, labels]``; `weights` are folded, `inputs` raw states."""
        if self.kind == "linear":
            return torch.baddbmm(weights["bias"][:, None], inputs, weights["weight"])
        hidden = torch.baddbmm(weights["bias_in"][:, None], inputs, weights["weight_in"])
        if self.kind == "offset-mlp":
            hidden = hidden + weights["offset_embedding"][:, offsets] @ weights["weight_offset"]
        hidden = hidden.relu()
        if dropout is not None and self.options.dropout:
            keep = torch.rand(hidden.shape[1:], generator=dropout) >= self.options.dropout
            hidden = hidden * keep / (1 - self.options.dropout)
        return torch.baddbmm(weights["bias_out"][:, None], hidden, weights["weight_out"])

    @torch.no_grad()
    def _validate(
        self,
        weights: Mapping[str, Tensor],
        states: Tensor,
        labels: Tensor,
        offsets: Tensor,
        rows: Tensor,
        mean: Tensor,
        scale: Tensor,
        class_weights: Tensor,
    ) -> Tensor:
        """Loss per stack, classes counting equally."""
        total = torch.zeros(states.shape[0])
        folded = _fold(weights, mean, scale, self.kind)
        for batch in rows.split(4096):
            logits = self._forward(folded, states[:, batch], offsets[batch])
            total += _losses(logits, labels[batch], class_weights) * len(batch)
        return total / len(rows)

    def _rate(self, step: int, steps: int) -> float:
        options = self.options
        rise = options.warmup * steps
        if step < rise:
            return options.learning_rate * (step + 1) / rise
        if not options.cosine:
            return options.learning_rate
        done = (step - rise) / max(1.0, steps - rise)
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def directions(states: Tensor, labels: Tensor, rows: Tensor, n_labels: int) -> Tensor:
    """Unit directions ``[stacks, labels, d_model]``: mean state of a class minus the mean over
    classes (paper C, step 4, without its grouping)."""
    means = torch.stack(
        [states[:, rows[labels[rows] == label]].mean(1) for label in range(n_labels)], dim=1
    )
    return nn.functional.normalize(means - means.mean(1, keepdim=True), dim=-1)


def _standardisation(states: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation ``[stacks, 1, d_model]`` over the training rows.

    A dimension that is the same in all of them, as the embedding of a template's last token,
    weighs 0: it says nothing, and would say anything of a state where it differs.
    """
    unique = rows.unique()
    means, scales = [], []
    for stack in states:
        if not bool(torch.isfinite(stack).all()):
            raise TrainingError(
                "Could not fit heads: some states are NaN or infinite. Load the model with "
                "--dtype float32, and check it with: emowatch doctor"
            )
        chosen = stack[unique]
        mean, deviation = chosen.mean(0), chosen.std(0, correction=0)
        varies = deviation > 1e-6 * (1 + mean.abs())
        means.append(mean)
        scales.append(torch.where(varies, 1 / deviation, 0.0))
    return torch.stack(means)[:, None], torch.stack(scales)[:, None]


def _losses(logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean cross entropy per stack."""
    stacks, rows, classes = logits.shape
    losses = nn.functional.cross_entropy(
        logits.reshape(-1, classes), labels.repeat(stacks), class_weights, reduction="none"
    )
    return losses.reshape(stacks, rows).mean(1)


def _balanced_weights(labels: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return len(labels) / (classes * counts.float())


def _fold(
    weights: Mapping[str, Tensor], mean: Tensor, scale: Tensor, kind: HeadKind
) -> dict[str, Tensor]:
    """Take the standardisation into the first layer, so that heads read raw states.

    Done at every step too: weights are smaller than a batch of states.
    """
    folded = dict(weights)
    first, bias = ("weight", "bias") if kind == "linear" else ("weight_in", "bias_in")
    folded[first] = weights[first] * scale.transpose(1, 2)
    folded[bias] = weights[bias] - (mean @ folded[first])[:, 0]
    return folded
