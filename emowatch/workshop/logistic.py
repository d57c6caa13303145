"""Solve linear heads: multinomial logistic regression for many stacks at once.

Minimises, for each stack, the weighted mean cross entropy plus half `l2` times the squared
weights (the bias is free), which is scikit-learn's objective with ``C = 1 / (l2 * rows)``.
Conjugate gradients (Polak-Ribiere) are preconditioned by Boehning's bound on the curvature,
``(X' diag(r) X) / 2 + l2`` (Boehning 1992, section 3): one Cholesky factor per stack and
strength, which takes much of the correlation of a residual stream out of the problem. Beside very
large states the strength is raised in the bound alone (`RIDGE`), which moves no optimum.
`TOLERANCE` stops well before scikit-learn's loss at ``C = 1``, where validation gains nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emowatch.workshop.scaling import standardisation

TOLERANCE = 1e-2
"""A stack is solved when its squared, preconditioned gradient has fallen by this factor."""
FLOOR = 1e-14
"""Or when it is as small as this, which is what rounding leaves of a gradient that is 0."""
ITERATIONS = 200
"""At most, for each strength."""
RIDGE = 1e-6
"""Share of the states' variance that the preconditioner adds to each direction, where `l2` is less:
float32 does not know a gram matrix better, and one that is not positive has no factor."""
CHUNK = 2**22
"""Numbers in the states of the stacks that are solved together: they stay in the cache."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Linear heads in units of raw states."""

    weight: Tensor
    """``[stacks, d_model, labels]``."""
    bias: Tensor
    """``[stacks, labels]``."""
    l2: Tensor
    """``[stacks]``, the strength chosen on validation."""
    validation_loss: Tensor
    """``[stacks]``, at that strength."""


def solve(
    states: Tensor,
    labels: Tensor,
    row_weights: Tensor,
    validation: Tensor,
    validation_weights: Tensor,
    strengths: Sequence[float],
    *,
    tolerance: float = TOLERANCE,
    progress: Callable[[int, int], None] | None = None,
) -> Solution:
    """Solve each stack from the strongest `strengths` on, and keep what validation likes best.

    A stack goes no further once a weaker strength does not lower its validation loss.

    Args:
        states: ``[stacks, rows, d_model]`` float32; training and validation rows in one.
        labels: ``[rows]`` class numbers.
        row_weights: ``[rows]``, the weight of each in the loss, of sum 1; 0 for those that are
            not learned from.
        validation: row numbers to choose the strength by.
        validation_weights: ``[labels]``, the weight of each class there; its length is the
            number of classes.
        strengths: of the L2 penalty in units of standardised states.
        tolerance: see `TOLERANCE`.
        progress: called with stacks done and stacks in all.

    Raises:
        TrainingError: for states with NaN or infinity.
    """
    targets = nn.functional.one_hot(labels, len(validation_weights)).float().T.contiguous()
    together = max(1, CHUNK // max(1, states[0].numel()))
    parts = []
    for part in states.split(together):
        mean, scale = standardisation(part, row_weights)
        problem = Problem(part, targets, row_weights, mean, scale, tolerance)
        parts.append(_path(problem, labels, validation, validation_weights, strengths))
        if progress is not None:
            progress(sum(len(done.l2) for done in parts), len(states))
    return Solution(
        weight=torch.cat([part.weight for part in parts]),
        bias=torch.cat([part.bias for part in parts]),
        l2=torch.cat([part.l2 for part in parts]),
        validation_loss=torch.cat([part.validation_loss for part in parts]),
    )


def _path(
    problem: Problem,
    labels: Tensor,
    validation: Tensor,
    validation_weights: Tensor,
    strengths: Sequence[float],
) -> Solution:
    stacks = len(problem.states)
    best_weight, best_bias = problem.weight.clone(), problem.bias.clone()
    best_loss, best_l2 = torch.full((stacks,), math.inf), torch.zeros(stacks)
    going = torch.ones(stacks, dtype=torch.bool)
    wanted = labels[validation].expand(stacks, -1)
    for l2 in sorted(strengths, reverse=True):
        problem.minimise(l2, going)
        losses = nn.functional.cross_entropy(
            problem.head_logits[:, :, validation], wanted, validation_weights, reduction="none"
        ).mean(1)
        going = going & (losses < best_loss - 1e-4)
        best_weight[going], best_bias[going] = problem.weight[going], problem.bias[going]
        best_loss, best_l2 = torch.where(going, losses, best_loss), best_l2.masked_fill(going, l2)
        if not bool(going.any()):
            break
    weight = best_weight * problem.scale
    bias = best_bias - weight @ problem.mean.transpose(1, 2)
    return Solution(weight.transpose(1, 2).contiguous(), bias[..., 0], best_l2, best_loss)


class Problem:
    """Some stacks with the weights reached so far, in units of states less `mean` times `scale`.

    Logits are carried along rather than computed anew: they are linear in the weights, so one
    pass over the states gives them for a whole line search, on validation rows too.

    Attributes:
        weight: ``[stacks, labels, d_model]``.
        bias: ``[stacks, labels, 1]``.
        head_logits: ``[stacks, labels, rows]``.
        first: ``[stacks]``, the squared gradient that the last descent had to bring down.
    """

    def __init__(
        self,
        states: Tensor,
        targets: Tensor,
        row_weights: Tensor,
        mean: Tensor,
        scale: Tensor,
        tolerance: float,
        *,
        carried: torch.dtype = torch.float32,
    ) -> None:
        """Begin at weights of 0.

        Args:
            states: ``[stacks, rows, d_model]`` float32.
            targets: ``[labels, rows]``, 1 where a row is of a label.
            row_weights: ``[rows]``, of sum 1.
            mean: ``[stacks, 1, d_model]``, what states are taken from.
            scale: ``[stacks, 1, d_model]``, in which the penalty has its units.
            tolerance: see `TOLERANCE`.
            carried: of weights and logits. Products with states are in float32 in any case; it is
                the sum over many steps that loses digits.
        """
        stacks, rows, width = states.shape
        self.states = states
        self.row_weights = row_weights
        self.tolerance = tolerance
        self.weighted_targets = targets * row_weights  # [labels, rows]
        self.mean, self.scale = mean, scale
        used = row_weights.nonzero()[:, 0]
        roots = row_weights[used].sqrt()[:, None]
        self.first: Tensor | None = None
        self._gram = torch.empty(stacks, width, width)
        for stack, centre, unit, gram in zip(
            states, mean, scale, self._gram, strict=True
        ):  # one at a time: centred states are a copy
            centred = (stack[used] - centre) * unit * roots
            torch.mm(centred.T, centred, out=gram)
        self.weight = torch.zeros(stacks, len(targets), width, dtype=carried)
        self.bias = torch.zeros(stacks, len(targets), 1, dtype=carried)
        self.head_logits = torch.zeros(stacks, len(targets), rows, dtype=carried)

    def only(self, places: Tensor, carried: torch.dtype = torch.float32) -> Problem:
        """Give the problem of some of the stacks, which goes on where they are."""
        part = copy.copy(self)
        for name in ("states", "mean", "scale", "_gram"):
            setattr(part, name, getattr(self, name)[places])
        part.first = None if self.first is None else self.first[places]
        for name in ("weight", "bias", "head_logits"):
            setattr(part, name, getattr(self, name)[places].to(carried))
        return part

    def minimise(
        self,
        l2: float,
        going: Tensor,
        iterations: int = ITERATIONS,
        first: Tensor | None = None,
    ) -> Tensor:
        """Go on from the present weights to the minimum at one strength, where `going`.

        Args:
            l2: the strength.
            going: ``[stacks]``, which of them to solve.
            iterations: at most.
            first: ``[stacks]``, what the gradient has to fall from; default: what it is now.

        Returns:
            ``[stacks]``: which of them have not come there.
        """
        width = self._gram.shape[-1]
        trace = self._gram.diagonal(0, -2, -1).sum(-1)
        ridge = (RIDGE * trace).clamp(min=l2)
        curvature = 0.5 * self._gram + ridge[:, None, None] * torch.eye(width)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(curvature))
        # A ridge above the strength makes a gradient look smaller, by so much at most.
        tolerance = self.tolerance * l2 / ridge
        weight_step = torch.zeros(self.weight.shape)
        bias_step = torch.zeros(self.bias.shape)
        old: tuple[Tensor, Tensor, Tensor] | None = None
        for _ in range(iterations):
            chances = self.head_logits.softmax(1) * self.row_weights
            errors = (chances - self.weighted_targets).float()
            bias_slope = errors.sum(2, keepdim=True)
            slope = (errors @ self.states - bias_slope * self.mean) * self.scale
            slope += l2 * self.weight
            ahead = slope @ inverse  # the bias has curvature 1/2 at most: rows weigh 1 in all
            size = _dot(slope, ahead) + 2 * _dot(bias_slope, bias_slope)
            first = size if first is None else first
            going = going & (size > (tolerance * first).clamp(min=FLOOR))
            if not bool(going.any()):
                break
            turn = torch.zeros_like(size)
            if old is not None:
                common = _dot(old[0], ahead) + 2 * _dot(old[1], bias_slope)
                turn = ((size - common) / old[2].clamp(min=1e-30)).clamp(min=0)
            old = slope, bias_slope, size
            weight_step = turn[:, None, None] * weight_step - ahead
            bias_step = turn[:, None, None] * bias_step - 2 * bias_slope
            # A direction that no longer leads down is given up for the steepest.
            down = _dot(slope, weight_step) + _dot(bias_slope, bias_step)
            uphill = down >= 0
            weight_step[uphill], bias_step[uphill] = -ahead[uphill], -2 * bias_slope[uphill]
            down = torch.where(uphill, -size, down)
            self._step(weight_step, bias_step, chances, down, l2, going)
        self.first = first
        return going

    def _step(
        self,
        weight_step: Tensor,
        bias_step: Tensor,
        chances: Tensor,
        down: Tensor,
        l2: float,
        going: Tensor,
    ) -> None:
        """Search along a direction and move: Newton's step, and back where it went too far.

        `chances` are the weighted probabilities at the present weights, `down` is the slope there.
        """
        scaled = weight_step * self.scale
        rise = torch.baddbmm(
            bias_step - scaled @ self.mean.transpose(1, 2), scaled, self.states.transpose(1, 2)
        )
        pulled = chances * rise
        spread = pulled.sum(1).square() / self.row_weights.clamp(min=1e-30)
        bend = l2 * _dot(weight_step, weight_step)
        curvature = ((pulled * rise).sum((1, 2)) - spread.sum(1) + bend).clamp(min=1e-30)
        weighted = rise * self.row_weights
        drop = (self.weighted_targets * rise).sum((1, 2)) - l2 * _dot(self.weight, weight_step)
        length = -down / curvature
        for _ in range(8):
            there = (self.head_logits + length[:, None, None] * rise).softmax(1)
            reached = (there * weighted).sum((1, 2)) - drop + length * bend
            far = reached > -0.1 * down  # it rises there; `down` is negative
            if not bool((far & going).any()):
                break
            length = torch.where(far, length * down / (down - reached), length)
        length = torch.where(going, length, 0.0)[:, None, None]
        self.weight = self.weight + length * weight_step
        self.bias = self.bias + length * bias_step
        self.head_logits = self.head_logits + length * rise


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner product of each stack ``[stacks]``."""
    return (left * right).sum((1, 2))
