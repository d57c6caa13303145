"""Logistic regression of papers: scikit-learn's optimum, whatever the states look like."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from emowatch.errors import TrainingError
from emowatch.workshop import regression
from emowatch.workshop.regression import fit_logistic

CLASSES, WIDTH = 5, 24


def residual_like(stacks: int = 3, rows: int = 150, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw states of overlapping classes, correlated, far from 0 and of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % CLASSES
    centres = torch.randn(stacks, CLASSES, WIDTH, generator=generator)
    mixing = torch.randn(stacks, WIDTH, WIDTH, generator=generator)
    noise = torch.randn(stacks, rows, WIDTH, generator=generator)
    sizes = torch.logspace(-1, 0.5, stacks)[:, None, None]
    return sizes * ((centres[:, labels] + noise) @ mixing + 20), labels


def reference(states: Tensor, labels: Tensor, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Let scikit-learn fit one stack until it is at the optimum.

    About the mean of the states, as it takes ten times as long where they are far from 0.
    """
    mean = states.double().mean(0)
    head = LogisticRegression(C=1 / penalty, tol=1e-7, max_iter=100_000)
    head.fit((states - mean).numpy(), labels.numpy())
    weight = torch.from_numpy(head.coef_).T
    return weight, torch.from_numpy(head.intercept_) - mean @ weight


@pytest.mark.parametrize("penalty", [1.0, 10.0, 100.0])
def test_the_coefficients_are_those_of_scikit_learn(penalty: float) -> None:
    """The notebook's C is 1 on raw states; its figures must be those of its own probes."""
    states, labels = residual_like()
    found = fit_logistic(states, labels, CLASSES, penalty=penalty)
    assert not bool(found.unsolved.any())
    said = found.head_logits(states).double()
    for place, stack in enumerate(states):
        weight, bias = reference(stack, labels, penalty)
        assert float((found.weight[place] - weight).abs().max()) < 1e-3
        wanted = stack.double() @ weight + bias
        got = said[place] - said[place].mean(1, keepdim=True)
        wanted = wanted - wanted.mean(1, keepdim=True)
        assert float((got - wanted).abs().max()) < 0.01 * float(wanted.abs().max())
        assert bool((got.argmax(1) == wanted.argmax(1)).all())


def optimum(states: Tensor, labels: Tensor) -> Tensor:
    """Let scikit-learn find the weights of one stack by Newton's method, in its rows' own space."""
    mean = states.double().mean(0)
    left, sizes, right = torch.linalg.svd(states.double() - mean, full_matrices=False)
    head = LogisticRegression(solver="newton-cholesky", tol=1e-8, max_iter=1000)
    head.fit((left * sizes).numpy(), labels.numpy())
    weight: Tensor = right.T @ torch.from_numpy(head.coef_).T
    return weight


def apart(found: Tensor, wanted: Tensor) -> float:
    """Give the distance of weights as a share of their size."""
    return float((found - wanted).norm() / wanted.norm())


def turned(states: Tensor) -> Tensor:
    """Turn states so that their directions are no longer the axes."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(states.shape[-1], states.shape[-1], generator=generator)
    rotation: Tensor = torch.linalg.qr(mixing.double()).Q
    return (states.double() @ rotation).float()


@pytest.mark.parametrize(("rows", "width"), [(300, 24), (120, 160)])
def test_a_few_very_large_directions_are_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, rows: int, width: int
) -> None:
    """Beside them the penalty is lost in rounding, and a factorisation in float32 would fail."""
    monkeypatch.setattr(regression, "ROUNDS", (30,) * 10)
    monkeypatch.setattr(regression, "LAST_ROUND", 30)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % CLASSES
    centres = torch.randn(CLASSES, width, generator=generator)
    states = torch.randn(rows, width, generator=generator) + centres[labels] / 10
    states[:, :5] *= 5000
    states = turned(states)
    found = fit_logistic(states[None], labels, CLASSES)
    assert apart(found.weight[0], optimum(states, labels)) < 1e-3


def test_large_states_of_all_sizes_come_to_the_same_optimum() -> None:
    """The variance of a residual stream falls off as a power; its weakest directions count too."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (120,), generator=generator)
    sizes = 1000 / torch.arange(1, 201).sqrt()
    centres = torch.randn(CLASSES, 200, generator=generator) / 5
    states = turned((torch.randn(120, 200, generator=generator) + centres[labels]) * sizes)
    found = fit_logistic(states[None], labels, CLASSES)
    assert not bool(found.unsolved.any())
    assert apart(found.weight[0], optimum(states, labels)) < 0.05


def test_states_that_are_all_the_same_teach_the_frequencies_alone() -> None:
    """As at layer 0, where the last token of every prompt is one and the same."""
    labels = torch.tensor([0, 0, 0, 1, 1, 2] * 20)
    states = torch.full((1, len(labels), WIDTH), 3.7)
    found = fit_logistic(states, labels, 3)
    chances = found.head_logits(states)[0, 0].softmax(0)
    torch.testing.assert_close(chances, torch.tensor([1 / 2, 1 / 3, 1 / 6]), rtol=0, atol=1e-4)


def test_a_stack_comes_out_as_it_would_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that need many iterations go on without those that need few."""
    states, labels = residual_like(stacks=4)
    monkeypatch.setattr(regression, "ROUNDS", (5, 20, 400))
    together = fit_logistic(states, labels, CLASSES)
    for place in range(4):
        alone = fit_logistic(states[place : place + 1], labels, CLASSES)
        torch.testing.assert_close(together.weight[place], alone.weight[0], rtol=0, atol=5e-4)


def test_what_is_not_solved_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that hides it would print figures of another problem."""
    states, labels = residual_like()
    monkeypatch.setattr(regression, "ROUNDS", (1,))
    monkeypatch.setattr(regression, "LAST_ROUND", 1)
    assert bool(fit_logistic(states, labels, CLASSES).unsolved.all())


def test_float64_finishes_what_float32_cannot() -> None:
    """Past the digits that float32 carries, weights still come closer to the optimum."""
    states, labels = residual_like(stacks=1)
    found = fit_logistic(states, labels, CLASSES, tolerance=1e-13)
    assert not bool(found.unsolved.any())
    weight, _ = reference(states[0], labels)
    assert float((found.weight[0] - weight).abs().max()) < 1e-4


def test_states_that_are_no_numbers_are_refused() -> None:
    """With what to do about it."""
    states, labels = residual_like()
    states[1, 3, 2] = float("nan")
    with pytest.raises(TrainingError, match="NaN or infinite"):
        fit_logistic(states, labels, CLASSES)
