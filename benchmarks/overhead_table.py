"""Make a Markdown table of what `benchmarks.overhead` has measured.

python -m benchmarks.overhead_table RESULTS
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.results import Spread, read_results

GOALS: Mapping[str, float] = {"one-layer": 1.01, "all-layers": 1.02}
"""Largest ratio, at 135 M parameters and above."""
PLAIN = "plain"
REFERENCE = "all-layers"
"""The way of emowatch that others are divided by."""
RIVALRY = ("hidden-states", "naive-hooks", "nnsight", "transformer-lens")
NAMES: Mapping[str, str] = {
    "plain-again": "plain `generate` once more (the noise)",
    "one-layer": "emowatch, one layer",
    "one-layer-plugins": "emowatch, one layer, all plugins",
    "five-layers": "emowatch, five layers",
    "all-layers": "emowatch, all layers",
    "all-layers-plugins": "emowatch, all layers, all plugins",
    "hidden-states": "`output_hidden_states=True`, heads afterwards",
    "empty-hooks": "a hook on each block that does nothing",
    "naive-hooks": "a hook and `.tolist()` for each layer",
    "nnsight": "nnsight",
    "transformer-lens": "TransformerLens",
}
HEADER = (
    "| way | beside plain `generate` | it / emowatch, all layers | goal |",
    "|---|---|---|---|",
)
CELL = ("shape", "batch", "prompt", "tokens", "dtype", "device", "threads")
"""What parts the tables."""
Line = dict[str, Any]


def table(path: Path) -> str:
    """Summarise a file of results: a table for each shape, batch, dtype and device."""
    cells: dict[tuple[Any, ...], list[Line]] = defaultdict(list)
    for line in read_results(path):
        cells[tuple(line[key] for key in CELL)].append(line)
    parts = [
        f"{shape.upper()} parameters, batch {batch}, {tokens} tokens after {prompt}, {dtype}, "
        f"{device}, {threads} threads. "
        + _attaching(lines)
        + "\n\n"
        + "\n".join((*HEADER, *_rows(lines)))
        for (shape, batch, prompt, tokens, dtype, device, threads), lines in cells.items()
    ]
    return "\n\n".join([*parts, SMALL_PRINT])


def ratios(rounds: Sequence[Line], way: str, other: str) -> Spread:
    """Divide the time of a reply by that of another way in the same round, for each round."""
    return Spread.of([sum(r["steps"][way]) / sum(r["steps"][other]) for r in rounds])


def _rows(lines: Sequence[Line]) -> Iterator[str]:
    by_group: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_group[line["group"]].append(line)
    for group, of_group in sorted(by_group.items(), key=lambda item: _place(item[0])):
        held = [line for line in of_group if line["kind"] == "round"]
        for why in sorted({line["why"] for line in of_group if line["kind"] == "failed"}):
            yield f"| {NAMES.get(group, group)} | **broke off**: {why} | | |"
        for way in sorted({way for line in held for way in line["steps"]} - {PLAIN}, key=_place):
            rounds = [line for line in held if way in line["steps"]]
            beside = ratios(rounds, way, PLAIN)
            with_ours = [line for line in rounds if REFERENCE in line["steps"]]
            rivals = way in RIVALRY and with_ours
            against = ratios(with_ours, way, REFERENCE) if rivals else None
            name = NAMES[way] + _where(group, way, rounds)
            goal = _goal(way, rounds[0], beside, against)
            yield f"| {name} | {beside} ({beside.count}) | {against or ''} | {goal} |"


def _place(name: str) -> int:
    return -1 if name == "emowatch" else list(NAMES).index(name)


def _where(group: str, way: str, rounds: Sequence[Line]) -> str:
    found = sorted({line["faults"][way] for line in rounds} - {""})
    fault = f" (**{', '.join(found)}**)" if found else ""
    if group == "emowatch":
        return fault
    version = rounds[0]["versions"].get(way)
    return (f" {version}" if version else f", beside {NAMES[group]}") + fault


def _goal(way: str, one: Line, beside: Spread, against: Spread | None) -> str:
    if against is not None:
        low, high = against.interval
        return f"≥ 1: {'met' if low >= 1 else 'missed' if high < 1 else 'not decided'}"
    if way not in GOALS or one["shape"] == "50m":
        return ""
    return f"≤ {GOALS[way]}: {beside.verdict(GOALS[way])}"


def _attaching(lines: Sequence[Line]) -> str:
    """Say what a session costs once, in tokens of plain ``generate``."""
    tokens = [
        line["attach_s"][REFERENCE] / statistics.median(line["steps"][PLAIN])
        for line in lines
        if line["kind"] == "round" and REFERENCE in line["attach_s"]
    ]
    if not tokens:
        return ""
    return f"A session is opened in the time of {statistics.median(tokens):.1f} tokens."


SMALL_PRINT = (
    "Ratios of the time of whole replies, whose tokens were made in turn: the median of the "
    "rounds, in brackets the quartiles, then the 95 % interval of the median (bootstrap), then the "
    "rounds. Where no plugin is named nobody hears of tokens as they come. A goal is met or missed "
    "where the "
    "whole interval is on one side of it. The base of each rival is plain `generate` in the "
    "rival's own process and environment, where emowatch ran too. Opening a session, and wrapping "
    "the copy of the model that each rival is given, are not timed; TransformerLens runs attention "
    "in its eager form, as it always does. All ways apply the same heads."
)


@click.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
def main(results: Path) -> None:
    """Print the tables."""
    print(table(results))


if __name__ == "__main__":
    main()
