"""Split a corpus so that no text's parent, examples or copies are on the other side.

arXiv 2510.04064 splits at random: a rewritten text then stands on one side and the text whose facts
it keeps on the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emowatch.errors import CorpusError, UsageError
from emowatch.text import clean_line
from emowatch.workshop.building.rewriting import folded
from emowatch.workshop.building.rows import CorpusRow, write_rows
from emowatch.workshop.corpora import split_by_group

SIDES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of each side, with the group of each."""

    sides: Mapping[str, tuple[CorpusRow, ...]]
    largest: int
    """Rows of the largest group."""
    groups: int

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the rows of each label on each side."""
        return {
            side: dict(sorted(Counter(row.label for row in rows).items()))
            for side, rows in self.sides.items()
        }


def split_rows(rows: Sequence[CorpusRow], fractions: Mapping[str, float], seed: int) -> Split:
    """Split by group: rows that are linked by a parent, an example or the same words.

    Args:
        rows: the corpus.
        fractions: of the groups, by side; they sum to 1.
        seed: of the draw.

    Raises:
        CorpusError: if a side would have no row of some label, or there are too few groups.
    """
    named = [replace(row, group=group) for row, group in zip(rows, _groups(rows), strict=True)]
    # Training draws its validation side from the names of groups, too. By the same names all of
    # the training side would be on one side of that, and one group be left to validate with.
    drawn = [f"split of a corpus: {row.group}" for row in named]
    indices = split_by_group(drawn, fractions=fractions, seed=seed)
    sides = {side: tuple(named[n] for n in chosen) for side, chosen in indices.items()}
    labels = {row.label for row in rows}
    for side, chosen_rows in sides.items():
        if missing := sorted(labels - {row.label for row in chosen_rows}):
            n = sum(row.label == missing[0] for row in rows)
            raise CorpusError(
                f"Could not split because {side} would have no row labelled "
                f"{clean_line(missing[0])!r} (there {'is' if n == 1 else 'are'} {n:,} in all). Add "
                "rows of it, make that side larger, or try another --seed."
            )
    seen = [{row.parent for row in chosen_rows} for chosen_rows in sides.values()]
    assert sum(map(len, seen)) == len(set().union(*seen)), "a parent straddles the split"
    sizes = Counter(row.group for row in named)
    return Split(sides, max(sizes.values()), len(sizes))


def _groups(rows: Sequence[CorpusRow]) -> list[str]:
    """Name the group of each row: the least parent of all rows that are linked to it."""
    places: dict[tuple[str, str], int] = {}
    links = []
    for number, row in enumerate(rows):
        names = {("id", row.id), ("id", row.parent), *(("id", one) for one in row.examples)}
        for name in (*names, ("words", folded(row.text))):
            links.append((number, len(rows) + places.setdefault(name, len(places))))
    ends = np.array(links)
    size = len(rows) + len(places)
    graph = coo_array((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), (size, size))
    _, of = connected_components(graph, directed=False)
    least: dict[int, str] = {}
    for row, component in zip(rows, of[: len(rows)].tolist(), strict=True):
        least[component] = min(row.parent, least.get(component, row.parent))
    return [least[component] for component in of[: len(rows)].tolist()]


def fractions_of(*, test: float, validation: float) -> dict[str, float]:
    """Give the fraction of each side.

    Raises:
        UsageError: if nothing is left to train on.
    """
    if test + validation >= 1:
        raise UsageError(
            f"Could not split: --test {test:g} and --validation {validation:g} leave nothing to "
            "train on."
        )
    parts = (1 - test - validation, validation, test)
    return {side: part for side, part in zip(SIDES, parts, strict=True) if part}


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written to, or holds a split, before any work is done.

    Raises:
        UsageError: saying why.
    """
    shown = clean_line(str(out))
    if out.exists() and not out.is_dir():
        raise UsageError(f"Could not write to {shown!r}: it is a file, and --out names a folder.")
    there = [side for side in SIDES if (out / f"{side}.jsonl").exists()]
    if there and not overwrite:
        raise UsageError(
            f"Could not write to {shown!r}: {there[0]}.jsonl is there already. Name another "
            "folder, or pass --overwrite."
        )


def write_split(out: Path, split: Split) -> None:
    """Write a file of JSON lines for each side, and remove those of an earlier split.

    Raises:
        EmowatchError: if the folder cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"Could not make the folder {clean_line(str(out))!r}: {error.strerror}. Choose another "
            "with --out."
        ) from error
    for side in SIDES:  # else a side of another split could be taken for one of this
        (out / f"{side}.jsonl").unlink(missing_ok=True)
    for side, rows in split.sides.items():
        write_rows(out / f"{side}.jsonl", rows)


def render_split(name: str, split: Split) -> str:
    """Lay out how many rows of each label each side has."""
    counts = split.counts()
    labels = sorted(set().union(*counts.values()))
    wide = max(5, *(len(clean_line(label, 16)) for label in labels))
    lines = [
        f"{name}: {split.groups:,} groups, the largest of {split.largest:,} rows; none straddles",
        f"  {'label':<{wide}}" + "".join(f"{side:>12}" for side in counts),
    ]
    for label in labels:
        cells = "".join(f"{of[label]:>12,}" for of in counts.values())
        lines.append(f"  {clean_line(label, 16):<{wide}}{cells}")
    sums = "".join(f"{sum(of.values()):>12,}" for of in counts.values())
    return "\n".join([*lines, f"  {'sum':<{wide}}{sums}"])
