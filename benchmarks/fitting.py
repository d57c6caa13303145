"""Fitting linear heads for all layers and five positions against a loop of scikit-learn.

python -m benchmarks.fitting [--rows 2000] [--pairs 1]
"""

from __future__ import annotations

import click
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.pairs import compare, row
from emowatch.bank.heads import Heads
from emowatch.workshop.training import HeadTrainer

LAYERS, POSITIONS, WIDTH, CLASSES = 13, 5, 512, 7


def made_up_states(rows: int) -> tuple[Tensor, Tensor]:
    """Draw states in which classes overlap more or less by stack: ``[stacks, rows, d_model]``."""
    generator = torch.Generator().manual_seed(0)
    stacks = LAYERS * POSITIONS
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    centres = torch.randn(stacks, CLASSES, WIDTH, generator=generator)
    strength = torch.linspace(0.0, 0.22, stacks)[:, None, None]
    noise = torch.randn(stacks, rows, WIDTH, generator=generator)
    return noise + strength * centres[:, labels], labels


def loop(states: Tensor, labels: Tensor, train: Tensor, test: Tensor) -> np.ndarray:
    """Fit one stack after the other; accuracy on the test rows."""
    found = []
    for stack in states.numpy():
        scaler = StandardScaler().fit(stack[train])
        head = LogisticRegression(C=1.0, max_iter=1000)
        head.fit(scaler.transform(stack[train]), labels[train].numpy())
        found.append(head.score(scaler.transform(stack[test]), labels[test].numpy()))
    return np.array(found)


def batched(states: Tensor, labels: Tensor, train: Tensor, test: Tensor) -> np.ndarray:
    """Fit all stacks at once; accuracy on the test rows. A tenth of `train` is for stopping."""
    cut = len(train) // 10
    trainer = HeadTrainer("linear").fit(states, labels, train[cut:], train[:cut])
    ones = torch.ones(len(states), 1)
    heads = Heads("linear", trainer.tensors_, ones, (0,))
    predicted = heads.logits(states[:, test], 0).argmax(-1)
    return (predicted == labels[test]).float().mean(1).numpy()


@click.command()
@click.option("--rows", default=2000)
@click.option("--pairs", default=1)
def main(rows: int, pairs: int) -> None:
    """Print the ratio of times and the difference in accuracy."""
    states, labels = made_up_states(rows)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1))
    train, test = order[: rows * 4 // 5], order[rows * 4 // 5 :]
    results: dict[str, np.ndarray] = {}

    def theirs() -> None:
        results["loop"] = loop(states, labels, train, test)

    def ours() -> None:
        results["batched"] = batched(states, labels, train, test)

    ratio = compare(theirs, ours, pairs=pairs, warm_up=0)
    row(f"{len(states)} linear heads, {rows} rows of width {WIDTH}", "", "goal")
    row("loop of LogisticRegression / one batched fit", ratio, "≥ 10")
    means = {name: values.mean() for name, values in results.items()}
    row("mean accuracy, loop", f"{means['loop']:.4f}")
    row("mean accuracy, batched", f"{means['batched']:.4f}", "within 0.01 of the loop, or above")


if __name__ == "__main__":
    main()
