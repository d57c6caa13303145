"""The notebook's probes against scikit-learn's loop: how fast, and how near to its coefficients.

Two loops of `LogisticRegression(C=1)` are run on the same stacks: one as the notebook has it
(`max_iter=1000`, tolerance 1e-4, float32), which mostly stops before the optimum, and one that
reaches it (`solver="newton-cholesky"`, float64; the usual solver does not, however long it may go
on: on half of the demo model's stacks its coefficients stay off by 6e-3). Ours fits all stacks in
one call. States are random, with the
spectrum of a residual stream, or those of the demo model reading crowd-enVENT.

    python -m benchmarks.notebook [--data ENVENT.csv] [--stacks 9] [--pairs 3]
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import click
import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.pairs import compare, row
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import load_model
from emowatch.studies.notebook.accounts import read_accounts
from emowatch.studies.notebook.probes import split
from emowatch.studies.notebook.states import ask, groups_of_layers, read_layers
from emowatch.workshop.preparation import quiet
from emowatch.workshop.regression import Logistic, fit_logistic

CLASSES = 13
TEST = 0.2
OPTIMUM = {"solver": "newton-cholesky", "tol": 1e-8, "max_iter": 100}
"""What the second loop is told."""


def random_states(stacks: int, rows: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw states whose variance falls off along their directions, and labels that overlap.

    Returns:
        Training states ``[stacks, rows, d_model]`` and labels, and those of a test.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    scales = torch.arange(1, width + 1) ** -0.5
    drawn = []
    for number in range(stacks):
        turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
        centres = 0.3 * torch.randn(CLASSES, width, generator=generator)
        noise = torch.randn(rows, width, generator=generator)
        size = 0.5 + 5 * number / stacks  # states grow with depth
        drawn.append(size * ((centres[labels] + noise) * scales * width**0.25) @ turn + size)
    states, cut = torch.stack(drawn), int(rows * (1 - TEST))
    return states[:, :cut], labels[:cut], states[:, cut:], labels[cut:]


def read_states(data: Path, stacks: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read the demo model's states of crowd-enVENT, some of the stacks, from layer 1 on."""
    loaded = load_model()
    blocks = find_blocks(loaded.model)
    questions = ask(read_accounts(data), loaded)
    layers = tuple(range(1, blocks.n_layers + 1))
    with tempfile.TemporaryDirectory() as work:
        found = read_layers(
            questions, loaded, blocks, layers, Path(work), batch_tokens=1024, report=quiet
        )
        states = torch.cat([part.flatten(0, 1) for _, part in groups_of_layers(found)])
    chosen = np.linspace(0, len(states) - 1, min(stacks, len(states))).round()
    states = states[torch.from_numpy(chosen).long()]
    sides = split(questions.accounts, 42)
    train, test = torch.from_numpy(sides.train), torch.from_numpy(sides.test)
    labels = torch.from_numpy(questions.accounts.emotions)
    return states[:, train].contiguous(), labels[train], states[:, test], labels[test]


def loop(states: Tensor, labels: Tensor, at_optimum: bool) -> list[LogisticRegression]:
    """Fit one stack after the other."""
    heads = []
    for stack in states:
        if at_optimum:
            head = LogisticRegression(C=1.0, **OPTIMUM)
            heads.append(head.fit(stack.double().numpy(), labels.numpy()))
        else:
            head = LogisticRegression(C=1.0, max_iter=1000)
            heads.append(head.fit(stack.numpy(), labels.numpy()))
    return heads


def furthest(heads: list[LogisticRegression], found: Logistic) -> float:
    """Give the largest difference of a coefficient."""
    theirs = np.stack([head.coef_.T for head in heads])
    return float(np.abs(theirs - found.weight.double().numpy()).max())


def accuracies(heads: list[LogisticRegression], test: Tensor, labels: Tensor) -> np.ndarray:
    """Measure each head on the test rows."""
    return np.array(
        [
            head.score(stack.numpy().astype(head.coef_.dtype), labels.numpy())
            for head, stack in zip(heads, test, strict=True)
        ]
    )


def measure(
    given: tuple[Tensor, Tensor, Tensor, Tensor], pairs: int, title: str, optimum: bool
) -> None:
    """Print ratios of times, differences of coefficients and accuracies."""
    train, labels, test, test_labels = given
    kept: dict[str, list[LogisticRegression]] = {}
    fitted: list[Logistic] = []

    def usual() -> None:
        kept["usual"] = loop(train, labels, at_optimum=False)

    def far() -> None:
        kept["optimum"] = loop(train, labels, at_optimum=True)

    def ours() -> None:
        fitted.append(fit_logistic(train, labels, int(labels.max()) + 1))

    row(title, "", "goal")
    row("loop as the notebook has it / one call", compare(usual, ours, pairs=pairs, warm_up=0), "")
    found = fitted[-1]
    ends = [int(head.n_iter_[0]) for head in kept["usual"]]
    row(
        "its iterations, median; at its limit of 1000", f"{np.median(ends):.0f}; {ends.count(1000)}"
    )
    row("its coefficients, largest difference from ours", f"{furthest(kept['usual'], found):.1e}")
    if optimum:
        row("loop at the optimum / one call", compare(far, ours, pairs=1, warm_up=0), "≥ 10")
        row(
            "its coefficients, largest difference from ours",
            f"{furthest(kept['optimum'], found):.1e}",
            "≤ 1e-3",
        )
    said = (found.predict(test) == test_labels).float().mean(1).numpy()
    row("stacks that we did not solve", int(found.unsolved.sum()), "0")
    row("accuracy, mean of one call", f"{said.mean():.4f}")
    for name, heads in kept.items():
        gap = np.abs(accuracies(heads, test, test_labels) - said).max()
        row(f"its largest difference from that of the loop ({name})", f"{gap:.4f}")


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path))
@click.option("--stacks", default=9)
@click.option("--pairs", default=3)
@click.option(
    "--optimum/--no-optimum", default=True, help="Run the second loop: half a minute a stack."
)
def main(data: Path | None, stacks: int, pairs: int, optimum: bool) -> None:
    """Measure the study's own size, and one that is wider."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # the notebook's loop stops at 1000
    if data is not None:
        given = read_states(data, stacks)
        title = f"demo model, {len(given[0])} of 40 stacks, {len(given[1])} rows, width 256"
        measure(given, pairs, title, optimum)
        return
    for rows, width in ((1200, 256), (1200, 1024)):
        given = random_states(stacks, rows, width)
        measure(given, pairs, f"{stacks} stacks, {len(given[1])} rows, width {width}", optimum)


if __name__ == "__main__":
    main()
