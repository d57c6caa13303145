"""How long the light commands take, beside the interpreter itself.

python -m benchmarks.startup [--runs 9]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from time import perf_counter

import click

from benchmarks.pairs import row


def seconds(command: list[str], runs: int) -> float:
    """Median wall time of a whole process."""
    times = []
    for _ in range(runs + 1):
        started = perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(perf_counter() - started)
    return statistics.median(times[1:])


@click.command()
@click.option("--runs", default=9)
def main(runs: int) -> None:
    """Print each command's time over that of an empty interpreter and of click's own help."""
    start = "from emowatch.cli import main; main()"
    bare = seconds([sys.executable, "-c", "pass"], runs)
    clicked = seconds([sys.executable, "-c", "import click"], runs)
    row("whole process", "times the bare interpreter", "")
    row("import click", f"{clicked / bare:.2f}")
    for arguments in (["--help"], ["plugins"]):
        took = seconds([sys.executable, "-c", start, *arguments], runs)
        within = "yes" if took <= 0.4 else "NO"
        row(f"emowatch {' '.join(arguments)}", f"{took / bare:.2f}", f"within 0.4 s: {within}")


if __name__ == "__main__":
    main()
