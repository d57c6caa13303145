"""``emowatch drift calibrate TRACES…``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emowatch.errors import UsageError
from emowatch.records import SEGMENTS, Segment
from emowatch.text import clean, clean_line

if TYPE_CHECKING:
    from emowatch.trace import Trace


@click.group()
def command() -> None:
    """Learn from recorded sessions what is usual, for drift-alarm."""


@command.command()
@click.argument("traces", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="baseline.json",
    show_default=True,
    help="Baseline to write.",
)
@click.option("--bank", help="Whose scores; default: the first bank's.")
@click.option(
    "--segment",
    type=click.Choice([segment for segment in SEGMENTS if segment != "special"]),
    default="reply",
    show_default=True,
    help="Whose tokens: of a prompt, those of the newest message.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="False alarms per 1,000 tokens to allow at most.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the two halves."
)
@click.option("--overwrite", is_flag=True, help="Replace the baseline.")
def calibrate(
    traces: tuple[str, ...],
    out: Path,
    bank: str | None,
    segment: Segment,
    rate: float,
    seed: int,
    overwrite: bool,
) -> None:
    """Set thresholds on TRACES of sessions in which nothing was wrong.

    Half of their rows tell what is usual, the other half from where on an alarm is rare enough.
    """
    from emowatch.drift.baseline import calibrate as calibrated

    if out.exists() and not overwrite:
        raise UsageError(
            f"Could not write {clean_line(str(out))!r}: it is there already. Name another file, "
            "or pass --overwrite."
        )
    found = calibrated(_each_once(traces), bank=bank, segment=segment, rate=rate, seed=seed)
    found.save(out)
    click.echo(clean(f"{out}: {found.bank}, {found.told}"))
    over = sum(one > found.threshold for one in found.maxima)
    if 2 * over > len(found.maxima):
        click.echo(
            "Most of these quiet rows would raise an alarm: so many were allowed. For alarms that "
            "mean something, record more or longer sessions and allow fewer.",
            err=True,
        )
    click.echo(clean(f"Next: emowatch chat --plugin drift-alarm:baseline={out}"), err=True)


def _each_once(paths: tuple[str, ...]) -> Iterator[Trace]:
    """Load traces; a session that is given twice would count as two."""
    from emowatch.trace import Trace

    known: dict[str, str] = {}
    for path in paths:
        trace = Trace.load(path)
        if first := known.get(trace.session.id):
            raise UsageError(
                f"Could not calibrate: {clean_line(path)!r} is of the session that "
                f"{clean_line(first)!r} is of, and a copy says nothing new. Name each trace once."
            )
        known[trace.session.id] = path
        yield trace
