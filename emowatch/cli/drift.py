"""``emowatch drift calibrate TRACES…``."""

from __future__ import annotations

from pathlib import Path

import click

from emowatch.errors import UsageError
from emowatch.records import SEGMENTS, Segment
from emowatch.text import clean, clean_line


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
@click.option("--seed", type=int, default=0, show_default=True, help="Of the two halves.")
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
    from emowatch.trace import Trace

    if out.exists() and not overwrite:
        raise UsageError(
            f"Could not write {clean_line(str(out))!r}: it is there already. Name another file, "
            "or pass --overwrite."
        )
    found = calibrated(
        (Trace.load(path) for path in traces), bank=bank, segment=segment, rate=rate, seed=seed
    )
    found.save(out)
    click.echo(clean(f"{out}: {found.bank}, {found.told}"))
    click.echo(clean(f"Next: emowatch chat --plugin drift-alarm:baseline={out}"), err=True)
