"""Watching against plain `generate`, 128 tokens greedy, JSONL log and alarm included.

python -m benchmarks.watching [--rounds 9] [--only "hidden 32, primary"]
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import click

from benchmarks.lockstep import Way, contest
from benchmarks.overhead_table import ratios
from benchmarks.pairs import row
from benchmarks.results import Results, read_results
from benchmarks.shapes import qwen3_50m
from benchmarks.ways import Plain, Scene, Watched, scene_of
from emowatch.bank import ProbeBank
from emowatch.bank.heads import HeadKind
from emowatch.labels import EKMAN7

TOKENS = 128
Which = Literal["primary", "all"]
PLUGINS = ("jsonl-log", "threshold-alarm")
WHICH: tuple[Which, ...] = ("primary", "all")
GOALS = {"primary": 1.02, "all": 1.04}
HEADS: tuple[tuple[HeadKind, int], ...] = (("linear", 0), ("offset-mlp", 32), ("offset-mlp", 64))
"""Kinds of head with the width of the hidden layer; `emowatch train` makes 32."""


def ways(scene: Scene) -> Iterator[Way]:
    """Make a way for each kind of head, at one layer and at all."""
    for (head, hidden), layers in itertools.product(HEADS, WHICH):
        bank = ProbeBank.random_for(scene.model, labels=EKMAN7, head=head, hidden=hidden or 32)
        name = f"{head}{f', hidden {hidden}' if hidden else ''}, {layers}"
        yield Watched(scene, name, bank, layers, PLUGINS)


@click.command()
@click.option("--rounds", default=9)
@click.option("--only", default="", help="Run the ways whose name ends so; fewer are less cold.")
def main(rounds: int, only: str) -> None:
    """Print watched time over plain time."""
    with (
        tempfile.TemporaryDirectory() as folder,
        scene_of(qwen3_50m(), batch=1, prompt=32, tokens=TOKENS) as scene,
    ):
        path = Path(folder) / "rounds.jsonl"
        plain, again = Plain(scene), Plain(scene, "plain-again")
        chosen = [way for way in ways(scene) if way.name.endswith(only)]
        contest([plain, again, *chosen], rounds=rounds, results=Results(path, {}))
        held = list(read_results(path))
    row(f"watched / plain generate, {TOKENS} tokens, {rounds} rounds", "median", "goal")
    for way in held[0]["steps"]:
        found = ratios(held, way, plain.name)
        limit = GOALS.get(way.rpartition(", ")[2])
        row(way, found, f"≤ {limit}: {found.verdict(limit)}" if limit else "")
        # Each kind of head has weights of its own: their scores need not agree, the tokens must.
        if any("other tokens" in line["faults"][way] for line in held):
            row("", "FAULT: other tokens")


if __name__ == "__main__":
    main()
