"""Fitting linear heads for all layers and five positions against a loop of scikit-learn.

States are those of the demo model: reading the project's own replies, whose tone is known, or
the texts of a labelled file. The loop fits one `LogisticRegression` (C = 1, as in the notebook
study) after the other on standardised states; the batched fit also chooses each head's penalty
among five, by a tenth of the training rows.

    python -m benchmarks.fitting [--data FILE] [--rows 2000] [--pairs 3]
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.pairs import compare, row
from emowatch.bank.heads import Heads
from emowatch.demo.recipe.banks import project_replies
from emowatch.labels import EKMAN7
from emowatch.model.loading import load_model
from emowatch.workshop.corpora import read_corpus
from emowatch.workshop.training import HeadTrainer

POSITIONS = 5


def labelled_texts(data: Path | None, rows: int) -> tuple[list[str], Tensor, Tensor]:
    """Give texts, their class numbers, and which are for the test, a fifth.

    No sentence of the project's replies is on both sides.
    """
    if data is None:
        replies = project_replies(seed=0)
        chosen = np.random.default_rng(0).permutation(len(replies))[:rows].tolist()
        texts = [replies[i][0] for i in chosen]
        labels = [EKMAN7.index(replies[i][1]) for i in chosen]
        test = [int(replies[i][2].split()[-1]) % 5 == 0 for i in chosen]
        return texts, torch.tensor(labels), torch.tensor(test)
    examples = read_corpus(data).examples
    chosen = np.random.default_rng(0).permutation(len(examples))[:rows].tolist()
    texts = [examples[i].text for i in chosen]
    return (
        texts,
        torch.tensor([examples[i].label for i in chosen]),
        torch.arange(len(texts)) % 5 == 0,
    )


@torch.no_grad()
def last_states(texts: list[str]) -> Tensor:
    """Read the demo model's states at the last five tokens: ``[layers * 5, texts, d_model]``."""
    loaded = load_model()
    batches = []
    for start in range(0, len(texts), 50):
        inputs = loaded.tokenizer(
            texts[start : start + 50],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=256,
        )  # the demo tokenizer pads on the left
        inputs.pop("token_type_ids", None)
        output = loaded.model(**inputs, output_hidden_states=True)
        batches.append(torch.stack(output.hidden_states)[:, :, -POSITIONS:])
    states = torch.cat(batches, dim=1).permute(0, 2, 1, 3)  # [layers, 5, texts, d_model]
    return states.flatten(0, 1).float().contiguous()


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
    """Fit all stacks at once; accuracy on the test rows."""
    cut = len(train) // 10
    trainer = HeadTrainer("linear").fit(states, labels, train[cut:], train[:cut])
    heads = Heads("linear", trainer.tensors_, torch.ones(len(states), 1), (0,))
    predicted = heads.head_logits(states[:, test], 0).argmax(-1)
    return (predicted == labels[test]).float().mean(1).numpy()


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path))
@click.option("--rows", default=2000)
@click.option("--pairs", default=3)
def main(data: Path | None, rows: int, pairs: int) -> None:
    """Print the ratio of times and the difference in accuracy."""
    texts, labels, is_test = labelled_texts(data, rows)
    states = last_states(texts)
    train, test = (~is_test).nonzero()[:, 0], is_test.nonzero()[:, 0]
    results: dict[str, np.ndarray] = {}

    def theirs() -> None:
        results["loop"] = loop(states, labels, train, test)

    def ours() -> None:
        results["batched"] = batched(states, labels, train, test)

    ratio = compare(theirs, ours, pairs=pairs, warm_up=0)
    stacks, count, width = states.shape
    row(f"{stacks} linear heads, {count} rows of width {width}", "", "goal")
    row("loop of LogisticRegression / one batched fit", ratio, "≥ 10")
    means = {name: values.mean() for name, values in results.items()}
    row("mean accuracy, loop", f"{means['loop']:.4f}")
    row("mean accuracy, batched", f"{means['batched']:.4f}", "within 0.01 of the loop, or above")


if __name__ == "__main__":
    main()
