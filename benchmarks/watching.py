"""Watching against plain `generate`, 128 tokens greedy, JSONL log and alarm included.

Beside the ratio of times stands the share of plain `generate` that passes inside the watch, from
a forward's states to the last plugin: it leaves out the hooks themselves, and most of the noise.

python -m benchmarks.watching [--pairs 9]
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Literal

import click
import torch

import emowatch
from benchmarks.pairs import compare, row
from benchmarks.shapes import qwen3_50m
from emowatch.bank import ProbeBank
from emowatch.bank.heads import HeadKind
from emowatch.labels import EKMAN7
from emowatch.model.tap import Forward

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

    plain_s: list[float] = []
    inside_s: list[float] = []

    def generate() -> torch.Tensor:
        output: torch.Tensor = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        return output

    def plain() -> torch.Tensor:
        started = perf_counter()
        output = generate()
        plain_s.append(perf_counter() - started)
        return output

    expected = plain()
    row(f"watched / plain generate, {TOKENS} tokens", "median [quartiles]", "goal")
    with tempfile.TemporaryDirectory() as folder:
        for (head, hidden), layers in itertools.product(HEADS, WHICH):
            bank = ProbeBank.random_for(model, labels=EKMAN7, head=head, hidden=hidden or 32)

            def watched(bank: ProbeBank = bank, layers: Which = layers) -> None:
                path = Path(folder) / f"{next(numbers)}.jsonl"
                plugins = [("jsonl-log", {"path": str(path)}), "threshold-alarm"]
                watch = emowatch.watch(model, None, probes=bank, plugins=plugins, layers=layers)
                take = watch._tap._on_forward
                inside_s.append(0.0)

                def timed(forward: Forward) -> None:
                    started = perf_counter()
                    take(forward)
                    inside_s[-1] += perf_counter() - started

                watch._tap._on_forward = timed
                with watch:
                    output = generate()
                assert torch.equal(output, expected), "watching changed the reply"

            plain_s.clear()
            inside_s.clear()
            ratio = compare(watched, plain, pairs=pairs)
            share = statistics.median(inside_s) / statistics.median(plain_s)
            goal = "≤ 1.02" if layers == "primary" else "≤ 1.04"
            kind = f"{head}, hidden {hidden}" if hidden else head
            row(f"{kind}, {'one layer' if layers == 'primary' else 'all 13 layers'}", ratio, goal)
            row("  share of plain generate inside the watch", f"{share:.3f}")


if __name__ == "__main__":
    main()
