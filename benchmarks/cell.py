"""One cell of the comparison of overheads, in a process of its own.

    python -m benchmarks.cell '{"shape": "135m", "batch": 1, …}'

It is started by `benchmarks.overhead`, with whichever interpreter has what its ways need.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.lockstep import Way
    from benchmarks.ways import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is measured together: ways that share a model, a prompt and their plain runs."""

    group: str
    """``emowatch``, or the rival in whose environment it runs."""
    ways: tuple[str, ...]
    shape: str
    batch: int
    tokens: int
    prompt: int
    rounds: int
    dtype: str
    device: str
    threads: int
    """Of torch."""
    results: str
    """File of JSON lines."""

    def written(self) -> str:
        """Write it down for another process."""
        return json.dumps(asdict(self))


def about(cell: Cell) -> dict[str, Any]:
    """List what its results are said of."""
    left_out = ("ways", "rounds", "results")
    return {name: value for name, value in asdict(cell).items() if name not in left_out}


def run(cell: Cell) -> None:
    """Run the rounds of one cell and append them to its file of results."""
    import torch

    from benchmarks.lockstep import contest
    from benchmarks.results import Results
    from benchmarks.shapes import llama
    from benchmarks.ways import Plain, scene_of

    torch.set_num_threads(cell.threads)
    versions = {name: version(name) for name in ("emowatch", "torch", "transformers")}
    machine = {"cpus": os.cpu_count(), "machine": platform.machine()}
    model = llama(cell.shape, getattr(torch, cell.dtype), cell.device)
    with scene_of(model, batch=cell.batch, prompt=cell.prompt, tokens=cell.tokens) as scene:
        ways = [_make(name, scene, versions) for name in cell.ways]
        results = Results(Path(cell.results), about(cell) | machine | {"versions": versions})
        contest([Plain(scene), *ways], rounds=cell.rounds, results=results)


def _make(name: str, scene: Scene, versions: dict[str, str]) -> Way:
    """Make a way by name; a rival's version is added to `versions`."""
    from benchmarks.rivals import RIVALS, make_rival
    from benchmarks.ways import OWN

    if name not in RIVALS:
        return OWN[name](scene)
    way, versions[name] = make_rival(name, scene)
    return way


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    run(Cell(**given | {"ways": tuple(given["ways"])}))
