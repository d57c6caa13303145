"""Solved linear heads: scikit-learn's solution, found from every start and in any company."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from emowatch.errors import TrainingError
from emowatch.workshop import logistic
from emowatch.workshop.logistic import Solution, solve

CLASSES, WIDTH = 3, 12


def overlapping(stacks: int = 2, rows: int = 240, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw correlated states ``[stacks, rows, 12]`` of three classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % CLASSES
    centres = torch.randn(stacks, CLASSES, WIDTH, generator=generator)
    mixing = torch.randn(stacks, WIDTH, WIDTH, generator=generator)
    noise = torch.randn(stacks, rows, WIDTH, generator=generator)
    return (0.7 * centres[:, labels] + noise) @ mixing + 5, labels


def solved(states: Tensor, labels: Tensor, *strengths: float, tolerance: float = 1e-12) -> Solution:
    """Learn from the first two thirds, choose by the rest."""
    rows = states.shape[1]
    cut = rows * 2 // 3
    weights = (torch.arange(rows) < cut) / cut
    ones = torch.ones(CLASSES)
    return solve(
        states, labels, weights, torch.arange(cut, rows), ones, strengths, tolerance=tolerance
    )


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_the_solution_is_that_of_scikit_learn(l2: float) -> None:
    """Papers' probes are scikit-learn's: a bank in their place must hold the same head."""
    states, labels = overlapping()
    found = solved(states, labels, l2)
    for stack, weight, bias in zip(states, found.weight, found.bias, strict=True):
        mean, scale = stack[:160].mean(0), stack[:160].std(0, correction=0)
        reference = LogisticRegression(C=1 / (160 * l2), tol=1e-10, max_iter=10_000)
        reference.fit(((stack[:160] - mean) / scale).double().numpy(), labels[:160].numpy())
        wanted = torch.from_numpy(reference.decision_function(((stack - mean) / scale).numpy()))
        got = stack @ weight + bias
        got = got - got.mean(-1, keepdim=True)  # a shift of all head logits changes no score
        torch.testing.assert_close(got, wanted.float(), rtol=2e-3, atol=2e-3)


def test_validation_chooses_the_strength() -> None:
    """Heads of noise want a strong penalty, heads of a clear signal a weak one."""
    clear, labels = overlapping(stacks=1)
    clear = clear + 4 * torch.nn.functional.one_hot(labels, WIDTH)
    noise = torch.randn(1, 240, WIDTH, generator=torch.Generator().manual_seed(1))
    strengths = (1.0, 0.1, 0.01, 0.001)
    found = solved(torch.cat([noise, clear]), labels, *strengths)
    assert found.l2.tolist() == pytest.approx([1.0, 0.001])
    for place, l2 in ((0, 1.0), (1, 0.001)):
        alone = solved(torch.cat([noise, clear]), labels, l2)
        torch.testing.assert_close(found.weight[place], alone.weight[place], rtol=1e-2, atol=1e-3)
    losses = [solved(noise, labels, l2).validation_loss.item() for l2 in strengths]
    assert losses[0] == min(losses)


def test_the_order_of_strengths_does_not_matter() -> None:
    """The path always goes from the strongest on."""
    states, labels = overlapping()
    first, second = solved(states, labels, 0.01, 1.0, 0.1), solved(states, labels, 1.0, 0.1, 0.01)
    assert torch.equal(first.weight, second.weight)


def test_a_stack_comes_out_as_it_would_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many are solved together follows from their size only; it is no part of the result."""
    states, labels = overlapping(stacks=5)
    strengths = (1.0, 0.1, 0.01)
    together = solved(states, labels, *strengths, tolerance=1e-2)
    monkeypatch.setattr(logistic, "CHUNK", 1)
    apart = solved(states, labels, *strengths, tolerance=1e-2)
    assert torch.equal(together.l2, apart.l2)
    torch.testing.assert_close(together.weight, apart.weight, rtol=1e-3, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([1e-6, 1e-3, 1.0]),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.integers(2, 40),
)
def test_no_data_lead_it_astray(seed: int, l2: float, size: float, rows: int) -> None:
    """Classes that part cleanly, fewer rows than dimensions, tiny or huge states: the loss ends
    below that of a head that knows nothing, and the weights are numbers."""
    states, _ = overlapping(stacks=1, rows=3 * rows, seed=seed)
    states = states * size
    labels = torch.randint(CLASSES, (3 * rows,), generator=torch.Generator().manual_seed(seed))
    found = solved(states, labels, l2, tolerance=1e-4)
    assert bool(torch.isfinite(found.weight).all())
    train = slice(0, 2 * rows)
    head_logits = states[0, train] @ found.weight[0] + found.bias[0]
    loss = torch.nn.functional.cross_entropy(head_logits, labels[train])
    assert float(loss) <= torch.tensor(3.0).log() + 1e-3


def test_rows_without_weight_are_not_learned_from() -> None:
    """Validation rows pass through the same products; their labels must not leak."""
    states, labels = overlapping()
    wrong = labels.clone()
    wrong[160:] = 0
    first, second = solved(states, labels, 0.1), solved(states, wrong, 0.1)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.validation_loss, second.validation_loss)


def test_a_rows_weight_is_as_good_as_its_repetition() -> None:
    """Balancing repeats rows; the solver is told how often instead."""
    states, labels = overlapping()
    ones, rows = torch.ones(CLASSES), torch.arange(240)
    weights = torch.where(labels == 1, 3.0, 1.0)
    weighted = solve(states, labels, weights / weights.sum(), rows, ones, [0.1], tolerance=1e-12)
    order = torch.repeat_interleave(rows, weights.long())
    even = torch.full((len(order),), 1 / len(order))
    repeated = solve(
        states[:, order], labels[order], even, torch.arange(9), ones, [0.1], tolerance=1e-12
    )
    torch.testing.assert_close(weighted.weight, repeated.weight, rtol=1e-3, atol=1e-4)


def test_progress_counts_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank of many wide layers takes minutes."""
    monkeypatch.setattr(logistic, "CHUNK", 1)
    states, labels = overlapping(stacks=3)
    told: list[tuple[int, int]] = []
    weights = torch.full((240,), 1 / 240)
    solve(
        states,
        labels,
        weights,
        torch.arange(240),
        torch.ones(CLASSES),
        [0.1],
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_states_that_are_no_numbers_are_refused() -> None:
    """Before a factorisation fails with a sentence about minors."""
    states, labels = overlapping()
    states[1, 3, 2] = float("inf")
    with pytest.raises(TrainingError, match="NaN or infinite"):
        solved(states, labels, 0.1)
