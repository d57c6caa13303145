"""How long the doctor takes, beside one forward over as many tokens as its prompt has.

python -m benchmarks.doctor [--runs 3]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import click
import torch

import emowatch
from benchmarks.pairs import row
from benchmarks.shapes import llama
from emowatch.doctor import examine
from emowatch.doctor.patient import PROMPT_TOKENS


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call."""
    started = perf_counter()
    run()
    return perf_counter() - started


def measure(name: str, model: Any, tokenizer: Any, limit: float, runs: int) -> None:
    """Examine a model several times, and run single forwards just before each."""
    ids = torch.arange(1, PROMPT_TOKENS + 1)[None]
    forwards, examinations = [], []
    failed = len(examine(model, tokenizer).failed)  # also imports what it needs
    with torch.no_grad():
        for _ in range(runs):
            forwards.append(statistics.median(seconds(lambda: model(ids)) for _ in range(3)))
            examinations.append(seconds(lambda: examine(model, tokenizer)))
    forward, took = statistics.median(forwards), statistics.median(examinations)
    within = "yes" if took <= limit else "NO"
    row(name, f"{took / forward:.0f}", f"within {limit:g} s: {within}; {failed} failed")


@click.command()
@click.option("--runs", default=3)
def main(runs: int) -> None:
    """Print an examination's time in forwards, for the demo model and one of 494 M parameters."""
    row("the doctor, float32", f"forwards of {PROMPT_TOKENS} tokens", "")
    demo = emowatch.load_model(dtype="float32")
    measure("embedded demo model", demo.model, demo.tokenizer, 2, runs)
    measure("494 M Llama, random weights", llama("500m"), None, 15, runs)


if __name__ == "__main__":
    main()
