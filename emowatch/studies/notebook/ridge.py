"""Ridge regression for many stacks at once, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ridge:
    """Linear readings of raw states, one for each stack."""

    weight: Tensor
    """``[stacks, d_model, targets]``, float64."""
    bias: Tensor
    """``[stacks, targets]``."""

    def predict(self, states: Tensor) -> Tensor:
        """Predict ``[stacks, rows, targets]`` from states ``[stacks, rows, d_model]``."""
        return states.double() @ self.weight + self.bias[:, None]


def fit_ridge(states: Tensor, targets: Tensor, alpha: float) -> Ridge:
    """Minimise squared errors plus `alpha` times the squared weights, as scikit-learn's `Ridge`.

    Args:
        states: ``[stacks, rows, d_model]``.
        targets: ``[rows, targets]``.
        alpha: of the penalty; the bias is free.
    """
    wanted = targets.double()
    centre = wanted.mean(0)
    grams, products, means = [], [], []
    for stack in states:  # one at a time: centred states in float64 are a copy
        mean = stack.double().mean(0)
        centred = stack.double() - mean
        grams.append(centred.T @ centred)
        products.append(centred.T @ (wanted - centre))
        means.append(mean)
    gram = torch.stack(grams)
    gram.diagonal(dim1=1, dim2=2).add_(alpha)
    weight = torch.cholesky_solve(torch.stack(products), torch.linalg.cholesky(gram))
    bias = centre - (torch.stack(means)[:, None] @ weight)[:, 0]
    return Ridge(weight, bias)
