"""Logistic regression as papers fit it: scikit-learn's optimum on raw states, for many stacks.

Minimises the summed cross entropy plus half `penalty` times the squared weights, the bias free:
the objective of ``LogisticRegression(C=1 / penalty)`` with three classes or more. scikit-learn
stops at its tolerance of 1e-4 or after `max_iter`, which on a residual stream is well before the
optimum; this goes on until weights are known to about 1e-4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emowatch.workshop.logistic import Problem
from emowatch.workshop.scaling import check_finite

TOLERANCE = 1e-12
"""A stack is solved when its squared, preconditioned gradient has fallen by this factor: weights
are then within 1e-4 of the optimum where classes overlap (`benchmarks/notebook.py`). Where they
part cleanly and the penalty is next to nothing beside the states, they are within a few percent
(states of a norm of 1,500; within a third at 4,500, where the loss is 1e-6)."""
ROUNDS = (30,) * 20
"""Iterations after which stacks that are solved are taken out from among the others."""
LAST_ROUND = 1000
"""Further iterations with weights and logits in float64, for stacks that float32 keeps too far."""
CHUNK = 2**22
"""Numbers in the states of the stacks that are solved together: they stay in the cache."""


@dataclass(frozen=True, slots=True)
class Logistic:
    """Linear heads in units of raw states."""

    weight: Tensor
    """``[stacks, d_model, labels]``; its sum over labels is 0."""
    bias: Tensor
    """``[stacks, labels]``; of sum 0."""
    unsolved: Tensor
    """``[stacks]``: whether the gradient has not fallen far enough."""

    def head_logits(self, states: Tensor) -> Tensor:
        """Give head logits ``[stacks, rows, labels]`` of states ``[stacks, rows, d_model]``."""
        return torch.baddbmm(self.bias[:, None], states, self.weight)

    def predict(self, states: Tensor) -> Tensor:
        """Give class numbers ``[stacks, rows]``."""
        return self.head_logits(states).argmax(-1)


def fit_logistic(
    states: Tensor,
    labels: Tensor,
    n_labels: int,
    *,
    penalty: float = 1.0,
    tolerance: float = TOLERANCE,
    progress: Callable[[int, int], None] | None = None,
) -> Logistic:
    """Fit one head to each stack.

    Args:
        states: ``[stacks, rows, d_model]`` float32.
        labels: ``[rows]`` class numbers.
        n_labels: number of classes, at least three: scikit-learn's problem with two is another.
        penalty: 1 / C.
        tolerance: see `TOLERANCE`.
        progress: called with stacks done and stacks in all.

    Raises:
        TrainingError: for states with NaN or infinity.
    """
    targets = nn.functional.one_hot(labels, n_labels).float().T.contiguous()
    parts: list[Logistic] = []
    for part in states.split(max(1, CHUNK // max(1, states[0].numel()))):
        check_finite(part)
        parts.append(_fit(part, targets, penalty / len(labels), tolerance))
        if progress is not None:
            progress(sum(len(done.unsolved) for done in parts), len(states))
    return Logistic(
        torch.cat([part.weight for part in parts]),
        torch.cat([part.bias for part in parts]),
        torch.cat([part.unsolved for part in parts]),
    )


def _fit(states: Tensor, targets: Tensor, l2: float, tolerance: float) -> Logistic:
    stacks, rows, width = states.shape
    mean = states.double().mean(1, keepdim=True)
    # Centred before anything is computed: beside a large mean, differences lose their digits.
    centred = (states - mean).float()
    problem = Problem(
        centred,
        targets,
        torch.full((rows,), 1 / rows),
        torch.zeros(stacks, 1, width),
        torch.ones(stacks, 1, width),
        tolerance,
    )
    weight = torch.zeros(stacks, len(targets), width, dtype=torch.float64)
    bias = torch.zeros(stacks, len(targets), 1, dtype=torch.float64)
    left = torch.arange(stacks)  # numbers of the stacks that are not solved
    for number, iterations in enumerate((*ROUNDS, LAST_ROUND)):
        every = torch.ones(len(left), dtype=torch.bool)
        going = problem.minimise(l2, every, iterations, problem.first)
        weight[left], bias[left] = problem.weight.double(), problem.bias.double()
        left = left[going]
        if not len(left):
            break
        is_last = number + 1 >= len(ROUNDS)
        problem = problem.only(going.nonzero()[:, 0], torch.float64 if is_last else torch.float32)
    bias = bias - weight @ mean.transpose(1, 2)
    bias = bias - bias.mean(1, keepdim=True)  # a shift of all head logits changes no score
    unsolved = torch.zeros(stacks, dtype=torch.bool)
    unsolved[left] = True
    return Logistic(weight.transpose(1, 2).float().contiguous(), bias[..., 0].float(), unsolved)
