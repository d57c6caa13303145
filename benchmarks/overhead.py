"""What reading along costs beside ``generate``: emowatch, what one does without it, its rivals.

    python -m benchmarks.overhead [-s 135m] [-b 1] [--rounds 12] [-o all-layers -o naive-hooks]

Rivals run in an environment of their own, which ``make bench-rivals`` makes: each in a process
with its own plain ``generate`` and with emowatch reading all layers, as the rival does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import torch

from benchmarks.cell import Cell, about
from benchmarks.overhead_table import table
from benchmarks.results import Results

SHAPES = ("50m", "135m", "500m")
TOGETHER = (
    ("plain-again", "one-layer", "all-layers", "hidden-states"),
    ("five-layers", "one-layer-plugins", "all-layers-plugins"),
    ("all-layers", "naive-hooks", "empty-hooks"),
)
"""What runs in lock-step: few ways at once, and what is compared with `BESIDE` beside it."""
OWN = tuple(dict.fromkeys(name for names in TOGETHER for name in names))
RIVALS = ("nnsight", "transformer-lens")
BESIDE = "all-layers"
"""What of emowatch runs beside each rival: it reads what they read."""
RIVALS_PYTHON = Path(".venv-rivals/bin/python")


@click.command()
@click.option("--shapes", "-s", multiple=True, type=click.Choice(SHAPES), default=SHAPES)
@click.option("--batch", "-b", multiple=True, type=int, default=(1, 8))
@click.option("--only", "-o", multiple=True, type=click.Choice((*OWN, *RIVALS)))
@click.option("--rounds", default=12, help="Each way generates once in each.")
@click.option("--tokens", default=64, help="New tokens of each reply.")
@click.option("--prompt", default=32, help="Tokens of the prompt.")
@click.option("--dtype", default="float32", type=click.Choice(("float32", "bfloat16")))
@click.option("--device", default="cpu")
@click.option("--threads", default=0, help="Of torch; 0 leaves it as it is.")
@click.option("--results", default="overhead.jsonl", help="It is appended to.")
def main(
    shapes: tuple[str, ...],
    batch: tuple[int, ...],
    only: tuple[str, ...],
    rounds: int,
    tokens: int,
    prompt: int,
    dtype: str,
    device: str,
    threads: int,
    results: str,
) -> None:
    """Measure cell by cell, and print a table of all that the file of results then holds."""
    failed = False
    for shape in shapes:
        for rows in batch:
            for group, ways in groups(only or (*OWN, *RIVALS)):
                cell = Cell(
                    group=group,
                    ways=ways,
                    shape=shape,
                    batch=rows,
                    tokens=tokens,
                    prompt=prompt,
                    rounds=rounds,
                    dtype=dtype,
                    device=device,
                    threads=threads or torch.get_num_threads(),
                    results=results,
                )
                if why := measure(cell):
                    failed = True
                    Results(Path(results), about(cell)).add("failed", why=why)
    print(table(Path(results)))
    sys.exit(failed)


def groups(names: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Part ways into those that run together: those of `TOGETHER`, and each rival with `BESIDE`."""
    placed: set[str] = set()
    for together in TOGETHER:
        own = tuple(name for name in together if name in names)
        if not placed.issuperset(own):
            placed.update(own)
            yield "emowatch", own
    for rival in names:
        if rival in RIVALS:
            yield rival, (BESIDE, rival)


def measure(cell: Cell) -> str:
    """Run a cell in a process of its own; return why it failed, and nothing where it did not."""
    python = Path(sys.executable) if cell.group == "emowatch" else RIVALS_PYTHON
    if not python.exists():
        return f"{python} is missing: run make bench-rivals"
    sys.stderr.write(f"{cell.shape}, batch {cell.batch}: {', '.join(cell.ways)} …\n")
    command = [str(python), "-m", "benchmarks.cell", cell.written()]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return ""
    sys.stderr.write(done.stderr)
    last = done.stderr.strip().rpartition("\n")[2]
    return last or f"it ended with status {done.returncode}"


if __name__ == "__main__":
    main()
