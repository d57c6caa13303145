"""Make a Markdown table of what `benchmarks.overhead` has measured.

python -m benchmarks.overhead_table RESULTS [--clock cpu_s]
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.rounds import Spread, ratio_of, read_results

GOALS: Mapping[str, float] = {"one-layer": 1.01, "all-layers": 1.02}
"""Largest ratio, at 135 M parameters and above."""
REFERENCE = "all-layers"
"""The way of emowatch that others are divided by."""
RIVALRY = ("hidden-states", "naive-hooks", "nnsight", "transformer-lens")
NAMES: Mapping[str, str] = {
    "one-layer": "emowatch, one layer",
    "one-layer-plugins": "emowatch, one layer, all plugins",
    "five-layers": "emowatch, five layers",
    "all-layers": "emowatch, all layers",
    "all-layers-plugins": "emowatch, all layers, all plugins",
    "hidden-states": "`output_hidden_states=True`, heads afterwards",
    "naive-hooks": "a hook and `.tolist()` for each layer",
    "nnsight": "nnsight",
    "transformer-lens": "TransformerLens",
}
HEADER = (
    "| way | beside plain `generate` | it / emowatch, all layers | goal |",
    "|---|---|---|---|",
)
CELL = ("shape", "batch", "tokens", "dtype", "device")
"""What parts the tables."""
Run = dict[str, Any]


def table(path: Path, clock: str = "wall_s") -> str:
    """Summarise a file of results: a table for each shape, batch, dtype and device."""
    cells: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for line in read_results(path):
        cells[tuple(line[key] for key in CELL)].append(line)
    parts = [
        f"{shape.upper()} parameters, batch {batch}, {tokens} tokens, {dtype}, {device}. "
        + _attaching(lines)
        + "\n\n"
        + "\n".join((*HEADER, *_rows(lines, clock)))
        for (shape, batch, tokens, dtype, device), lines in cells.items()
    ]
    return "\n\n".join([*parts, _small_print(clock)])


def _rows(lines: Sequence[Run], clock: str) -> Iterator[str]:
    by_way: dict[tuple[str, str], dict[int, Run]] = defaultdict(dict)
    for line in lines:
        if line["kind"] == "run":
            # A later run of the same round replaces the earlier: the file is appended to.
            by_way[line["group"], line["way"]][line["round"]] = line
    for group, way in sorted(by_way, key=lambda key: (_place(key[0]), _place(key[1]))):
        runs = by_way[group, way]
        ratios = {number: ratio_of(run, clock) for number, run in runs.items()}
        beside = Spread.of(list(ratios.values()))
        against: Spread | None = None
        if way in RIVALRY:
            ours = {n: ratio_of(r, clock) for n, r in by_way.get((group, REFERENCE), {}).items()}
            both = [ratios[number] / ours[number] for number in ratios if number in ours]
            against = Spread.of(both) if both else None
        name = NAMES[way] + _where(group, runs) + _faults(runs)
        goal = _goal(way, runs, beside, against)
        yield f"| {name} | {beside} ({beside.count}) | {against or ''} | {goal} |"
    for line in lines:
        if line["kind"] == "failed" and not any(group == line["group"] for group, _ in by_way):
            yield f"| {NAMES.get(line['group'], line['group'])} | not measured: {line['why']} | | |"


def _place(name: str) -> int:
    return -1 if name == "emowatch" else list(NAMES).index(name)


def _where(group: str, runs: Mapping[int, Run]) -> str:
    if group == "emowatch":
        return ""
    one = next(iter(runs.values()))
    found = one["versions"].get(one["way"])
    return f" {found}" if found else f", beside {NAMES[group]}"


def _faults(runs: Mapping[int, Run]) -> str:
    found = sorted({run["fault"] for run in runs.values()} - {""})
    return f" (**{', '.join(found)}**)" if found else ""


def _goal(way: str, runs: Mapping[int, Run], beside: Spread, against: Spread | None) -> str:
    if against is not None:
        low, high = against.interval
        return f"≥ 1: {'met' if low >= 1 else 'missed' if high < 1 else 'not decided'}"
    if way not in GOALS or next(iter(runs.values()))["shape"] == "50m":
        return ""
    (low, high), limit = beside.interval, GOALS[way]
    verdict = "met" if high <= limit else "missed" if low > limit else "not decided"
    return f"≤ {limit}: {verdict}"


def _attaching(lines: Sequence[Run]) -> str:
    """Say what a session costs once, in tokens of plain ``generate``."""
    tokens = [
        run["took"]["attach_s"] / (run["before"]["wall_s"] / run["tokens"])
        for run in lines
        if run["kind"] == "run" and run["way"] == REFERENCE
    ]
    if not tokens:
        return ""
    return f"A session is opened and closed in the time of {statistics.median(tokens):.1f} tokens."


def _small_print(clock: str) -> str:
    kind = "elapsed time" if clock == "wall_s" else "processor time of the whole process"
    return (
        f"Ratios of {kind}: the median of the rounds with its quartiles in brackets, then the 95 % "
        "interval of the median (bootstrap), then the rounds. A goal is met or missed where the "
        "whole interval is on one side of it. The base of each rival is plain `generate` in the "
        "rival's own process and environment, where emowatch ran too. Opening a session, and "
        "wrapping the copy of the model that each rival is given, are not timed; TransformerLens "
        "runs attention in its eager form, as it always does. All ways apply the same heads."
    )


@click.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
@click.option("--clock", default="wall_s", type=click.Choice(("wall_s", "cpu_s")))
def main(results: Path, clock: str) -> None:
    """Print the tables."""
    print(table(results, clock))


if __name__ == "__main__":
    main()
