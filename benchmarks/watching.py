"""Watching against plain `generate`, 128 tokens greedy, JSONL log and alarm included.

python -m benchmarks.watching [--pairs 9]
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Literal

import click
import torch

import emowatch
from benchmarks.pairs import compare, row
from benchmarks.shapes import qwen3_50m
from emowatch.bank import ProbeBank
from emowatch.bank.heads import HeadKind
from emowatch.labels import EKMAN7

TOKENS = 128
Which = Literal["primary", "all"]
WHICH: tuple[Which, ...] = ("primary", "all")
HEADS: tuple[tuple[HeadKind, int], ...] = (("linear", 0), ("offset-mlp", 32), ("offset-mlp", 64))
"""Kinds of head with the width of the hidden layer; the shipped banks have 32, `train` makes 64."""


@click.command()
@click.option("--pairs", default=9)
def main(pairs: int) -> None:
    """Print watched time over plain time."""
    model = qwen3_50m()
    ids = torch.randint(1, 32_000, (1, 32), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    numbers = itertools.count()

    def plain() -> torch.Tensor:
        output: torch.Tensor = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        return output

    expected = plain()
    row(f"watched / plain generate, {TOKENS} tokens", "median [quartiles]", "goal")
    with tempfile.TemporaryDirectory() as folder:
        for (head, hidden), layers in itertools.product(HEADS, WHICH):
            bank = ProbeBank.random_for(model, labels=EKMAN7, head=head, hidden=hidden or 32)

            def watched(bank: ProbeBank = bank, layers: Which = layers) -> None:
                path = Path(folder) / f"{next(numbers)}.jsonl"
                plugins = [("jsonl-log", {"path": str(path)}), "threshold-alarm"]
                with emowatch.watch(model, None, probes=bank, plugins=plugins, layers=layers):
                    output = plain()
                assert torch.equal(output, expected), "watching changed the reply"

            ratio = compare(watched, plain, pairs=pairs)
            goal = "≤ 1.02" if layers == "primary" else "≤ 1.04"
            kind = f"{head}, hidden {hidden}" if hidden else head
            row(f"{kind}, {'one layer' if layers == 'primary' else 'all 13 layers'}", ratio, goal)


if __name__ == "__main__":
    main()
