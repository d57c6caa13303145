"""Do states of a reply tell code, tool calls and other languages from replies of known tone?

`demo-tone7` reads texts as replies; DATA is the folder that the recipe of the demo model reads.

    python -m benchmarks.tones DATA [--work DIR]
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from benchmarks.pairs import row
from benchmarks.uncertainty import detectors, read
from emowatch.bank import load_bank
from emowatch.bank.readme import with_interval
from emowatch.demo.recipe import stages
from emowatch.demo.recipe.banks import BANKS, message_openings, tone_corpora
from emowatch.model.loading import load_model
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.metrics import auroc
from emowatch.workshop.uncertainty import KEEPS, HeldOut, distance_limit
from emowatch.workshop.unlike import unlike_corpora

RANGES = ((0, 0), (1, 7), (8, 31), (32, 95))
REFERENCE, TESTED = 1200, 900
"""Texts of the training that states are compared with, and of the test."""


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), help="Keep states here.")
def main(data: Path, work: Path | None) -> None:
    """Print how well each measure tells, by range of offsets."""
    bank, loaded = load_bank("demo-tone7"), load_model()
    plan = stages.Plan(data=data, work=Path())
    options = replace(BANKS["demo-tone7"], openings=message_openings(plan))
    training, test, _ = tone_corpora(plan)
    rng = random.Random(0)
    known, tested = sample(training, REFERENCE, rng), sample(test, TESTED, rng)
    corpora = {"known": known, "test": tested} | unlike_corpora(test)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        states = {
            name: read(bank, loaded, corpus, folder / name.replace(" ", "-"), options)
            for name, corpus in corpora.items()
        }
    reference = states.pop("known")
    measured = {name: dict(detectors(bank, reference, rows)) for name, rows in states.items()}
    row(f"against {len(set(states['test'].groups))} groups of replies", "AUROC [95 %]")
    for first, last in RANGES:
        for detector in measured["test"]:
            for kind in list(states)[1:]:
                like = chosen(states["test"], measured["test"][detector], first, last)
                other = chosen(states[kind], measured[kind][detector], first, last)
                area = auroc(*other, *like)
                least = like[0].min()
                limit = distance_limit(like[0] - least, like[1], KEEPS) + least
                row(
                    f"offsets {first}-{last}, {detector}, {kind}",
                    f"{with_interval(area.value, area.interval)}, "
                    f"{(other[0] > limit).mean():.2f} above the limit",
                )


def sample(corpus: Corpus, count: int, rng: random.Random) -> Corpus:
    """Draw some examples."""
    return replace(corpus, examples=tuple(rng.sample(corpus.examples, count)))


def chosen(
    rows: HeldOut, values: np.ndarray[tuple[int], np.dtype[np.float64]], first: int, last: int
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]
]:
    """Give values and groups of one range of offsets."""
    offsets = rows.offsets.numpy()
    inside = (first <= offsets) & (offsets <= last)
    return values[inside], np.array(rows.groups)[inside]


if __name__ == "__main__":
    main()
