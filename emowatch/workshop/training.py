"""Fit the heads of all layers in one batched fit.

Each layer's head is independent: its loss, its early stopping and its best weights are its
own, and it comes out as it would alone. Linear heads are solved, others learn by AdamW;
starting weights, batches and dropout are drawn once for all. Works on arrays, and knows
nothing of texts or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from emowatch.bank.heads import MAX_OFFSET, HeadKind
from emowatch.errors import TrainingError
from emowatch.workshop.logistic import solve
from emowatch.workshop.presets import FitOptions
from emowatch.workshop.scaling import fold, standardisation

SMALLEST_BATCH = 32
EMBEDDING = 16
"""Width of the learned offset embedding; the paper does not give one."""


@dataclass(frozen=True, slots=True)
class _Data:
    states: Tensor
    labels: Tensor
    offsets: Tensor
    mean: Tensor
    """``[stacks, 1, d_model]``, as `scale`."""
    scale: Tensor


class HeadTrainer:
    """Fits one head per stack: a layer, or a layer at one token position.

    Attributes:
        tensors_: after `fit`, the heads' tensors as a bank stores them, standardisation folded in.
        validation_loss_: ``[stacks]``, of the kept weights.
        epochs_: how many epochs ran; 0 where heads were solved.
        l2_: ``[stacks]``, the penalties of heads that were solved; empty where they were not.
    """

    def __init__(
        self, kind: HeadKind, options: FitOptions | None = None, along: Tensor | None = None
    ) -> None:
        """Choose the kind of head and how to fit it.

        Args:
            kind: of head.
            options: how it learns.
            along: ``[stacks, directions, d_model]``: what linear heads see of a state is its
                component along each direction, and nothing else.
        """
        self.kind = kind
        self.options = options or FitOptions()
        self._along = along

    def fit(
        self,
        states: Tensor,
        labels: Tensor,
        train: Tensor,
        validation: Tensor,
        *,
        counts: Tensor | None = None,
        offsets: Tensor | None = None,
        class_weights: Tensor | None = None,
        n_labels: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Fit on rows `train` and keep each stack's weights that validation likes best.

        Args:
            states: ``[stacks, rows, d_model]`` float32.
            labels: ``[rows]`` class numbers.
            train: row numbers to learn from, repeated as often as balancing wants; with
                `counts`, the first row of each example.
            validation: row numbers for early stopping and the L2 strength; classes count equally.
            counts: how many rows each example has, which follow one another, as the states of
                a reply do. Together they weigh as much as an example of one row: an epoch draws
                one of them.
            offsets: ``[rows]``; needed by ``offset-mlp``.
            class_weights: ``[labels]``, the alternative to balanced rows.
            n_labels: number of classes, where the last may be absent from `labels`.
            progress: called with what is done and what there is to do, at most.

        Raises:
            TrainingError: for states with NaN or infinity, or an empty split.
        """
        if len(train) == 0 or len(validation) == 0:
            raise TrainingError(
                f"Could not fit heads on {len(train)} training and {len(validation)} validation "
                "rows: both must hold some. Give more data."
            )
        if self._along is not None:
            states = states @ self._along.mT
        counts = torch.ones_like(train) if counts is None else counts
        classes = n_labels or int(labels.max()) + 1
        balanced = _balanced_weights(labels[validation], classes)
        shares = _row_weights(states.shape[1], train, counts)
        if self.kind == "linear" and self.options.strengths:
            if class_weights is not None:
                shares = shares * class_weights[labels]
                shares /= shares.sum()
            solved = solve(
                states,
                labels,
                shares,
                validation,
                balanced,
                self.options.strengths,
                progress=progress,
            )
            self.epochs_, self.l2_ = 0, solved.l2
            self.validation_loss_ = solved.validation_loss
            self.tensors_ = {"weight": solved.weight, "bias": solved.bias}
            self._widen()
            return self
        where = torch.zeros(states.shape[1], dtype=torch.long) if offsets is None else offsets
        where = where.clamp(max=MAX_OFFSET)
        mean, scale = standardisation(states, shares)
        data = _Data(states, labels, where, mean, scale)
        self.l2_ = torch.empty(0)
        self._descend(data, train, counts, validation, balanced, class_weights, progress)
        self._widen()
        return self

    def _widen(self) -> None:
        """Make heads of components into heads of whole states."""
        if self._along is not None:
            self.tensors_["weight"] = self._along.mT @ self.tensors_["weight"]

    def _descend(
        self,
        data: _Data,
        train: Tensor,
        counts: Tensor,
        validation: Tensor,
        balanced: Tensor,
        class_weights: Tensor | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Learn by AdamW with early stopping."""
        options = self.options
        generator = torch.Generator().manual_seed(options.seed)
        stacks, _, width = data.states.shape
        weights = self._new(stacks, width, len(balanced), generator)
        per_epoch = min(len(train), options.epoch_rows or len(train))
        # A small set is learned in small batches, for an epoch is to have at least 32 steps.
        batch_rows = min(options.batch, max(SMALLEST_BATCH, per_epoch // 32))
        steps = max(1, math.ceil(per_epoch / batch_rows))
        optimiser = torch.optim.AdamW(
            weights.values(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        best = {name: tensor.detach().clone() for name, tensor in weights.items()}
        best_loss = torch.full((stacks,), math.inf)
        waited = torch.zeros(stacks, dtype=torch.long)
        self.epochs_ = 0
        for epoch in range(options.epochs):
            drawn = train + (torch.rand(len(train), generator=generator) * counts).long()
            rows = drawn[torch.randperm(len(drawn), generator=generator)[:per_epoch]]
            for number, batch in enumerate(rows.split(batch_rows)):
                for group in optimiser.param_groups:
                    group["lr"] = self._rate(epoch * steps + number, options.epochs * steps)
                # Folded at every step: weights are smaller than a batch of states.
                folded = fold(weights, data.mean, data.scale, self.kind)
                head_logits = self._forward(
                    folded, data.states[:, batch], data.offsets[batch], generator
                )
                loss = _losses(head_logits, data.labels[batch], class_weights).sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            self.epochs_ = epoch + 1
            found = self._validate(weights, data, validation, balanced)
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
        self.tensors_ = fold(best, data.mean, data.scale, self.kind)

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
        self, weights: Mapping[str, Tensor], data: _Data, rows: Tensor, class_weights: Tensor
    ) -> Tensor:
        """Loss per stack, classes counting equally."""
        total = torch.zeros(data.states.shape[0])
        folded = fold(weights, data.mean, data.scale, self.kind)
        for batch in rows.split(4096):
            head_logits = self._forward(folded, data.states[:, batch], data.offsets[batch])
            total += _losses(head_logits, data.labels[batch], class_weights) * len(batch)
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


def _row_weights(rows: int, train: Tensor, counts: Tensor) -> Tensor:
    """How often each row is learned from, as a share ``[rows]`` of sum 1."""
    first = torch.repeat_interleave(train, counts)
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    place = torch.arange(len(first)) - start
    share = torch.repeat_interleave(1 / counts, counts)
    return torch.zeros(rows).index_add_(0, first + place, share) / len(train)


def _losses(head_logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean cross entropy per stack."""
    stacks, rows, classes = head_logits.shape
    losses = nn.functional.cross_entropy(
        head_logits.reshape(-1, classes), labels.repeat(stacks), class_weights, reduction="none"
    )
    return losses.reshape(stacks, rows).mean(1)


def _balanced_weights(labels: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return len(labels) / (classes * counts.float())
