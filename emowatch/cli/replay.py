"""``emowatch replay TRACE``: hear a stored session again, without the model."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from emowatch.cli.exits import Exit
from emowatch.cli.options import chosen_plugins
from emowatch.text import clean_line
from emowatch.tui.summary import braced

SPEED = 20
"""Tokens a second on the screen."""
BAR = 20
"""Width of a score of 1."""


@click.command()
@click.argument("trace")
@click.option("--bank", help="Whose scores are shown; default: the first bank's.")
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    help=f"Tokens a second. Default: {SPEED} on the screen, all at once in plain text.",
)
@click.option("--plain", is_flag=True, help="A line a token, as without a terminal.")
@click.option("--row", type=click.IntRange(0), default=0, help="Row of batches, on the screen.")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="NAME[:KEY=VALUE,…]",
    help="Plugin to drive over the session; repeatable.",
)
@click.option("--fail-on-alarm", is_flag=True, help="Exit with 4 if a plugin raises an alarm.")
def command(
    trace: str,
    bank: str | None,
    speed: float | None,
    plain: bool,
    row: int,
    plugins: tuple[str, ...],
    fail_on_alarm: bool,
) -> None:
    """Show a stored session token by token, or drive plugins over it.

    On a terminal the session plays on the screen of `emowatch chat`; in a pipe, with --bank or
    with --plain there is a line a token. With --plugin, alarms are those that the plugins raise
    now, and what they ask to steer is told and done to nothing.
    """
    from emowatch.trace import Trace

    held = Trace.load(trace)
    if bank is not None and bank not in held.by_bank:
        known = ", ".join(held.by_bank)
        raise click.UsageError(
            f"There is no bank {clean_line(bank)!r} in this trace; there are: {clean_line(known)}."
        )
    rows = sorted({score.sequence for score in held.tokens if score.offset is not None})
    if row and row not in rows:
        raise click.UsageError(
            f"There is no row {row} in this trace; there are: {', '.join(map(str, rows))}."
        )
    notes = () if held.complete else ("the trace has no end; its writer was cut off",)
    is_on_screen = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    if is_on_screen and not (plain or plugins or bank is not None):
        from emowatch.tui import run_replay

        code = run_replay(held, row=row, speed=speed or SPEED, notes=notes)
        if code:
            raise click.exceptions.Exit(code)
        return
    for note in notes:
        click.echo(f"emowatch: {note}", err=True)
    if plugins:
        _drive(held, plugins, fail_on_alarm)
    else:
        _show(held, bank, speed)


def _show(trace: Any, bank: str | None, speed: float | None) -> None:
    """Print a line for each token of a reply, alarms and ends of turns where they were."""
    table = trace.tokens if bank is None else trace.by_bank[bank]
    alarms = list(trace.alarms)
    pieces = {(turn.index, turn.sequence): turn.pieces for turn in trace.turns}
    told = -1
    for score in table:
        if score.offset is None:
            continue
        if score.turn != told:
            told = score.turn
            click.echo(clean_line(f"turn {told}"))
        value = score.scores[score.dominant]
        bar = "█" * round(BAR * value) if value == value else "?"
        row = f"{score.sequence}:" if score.sequence else ""
        click.echo(
            f"{row}{score.offset:>5}  {bar:<{BAR}}  {value:.2f} {clean_line(score.dominant)}"
            + _sureness(score)
            + (f"  ({score.segment})" if score.segment != "reply" else "")
            + _said(pieces.get((score.turn, score.sequence), ()), score.offset)
        )
        for alarm in [a for a in alarms if _is_at(a, score)]:
            alarms.remove(alarm)
            click.echo(clean_line(f"alarm ({alarm.level}): {alarm.rule}, {alarm.score:.2f}"))
        if speed is not None:
            time.sleep(1 / speed)
    for turn in trace.turns:
        click.echo(
            clean_line(
                f"turn {turn.index} row {turn.sequence}: {turn.reply_tokens} tokens, "
                f"{turn.finish_reason}"
            ),
            err=True,
        )


def _sureness(score: Any) -> str:
    """Give the label set where more than one label is plausible, and say where a bank abstains."""
    if score.abstains:
        return "  (abstains)"
    return f"  {braced(score.label_set)}" if len(score.label_set) > 1 else ""


def _said(pieces: Sequence[str], offset: int) -> str:
    """Give what a token says, where the trace holds it."""
    return f"  {clean_line(pieces[offset])}" if offset < len(pieces) else ""


def _is_at(alarm: Any, score: Any) -> bool:
    here = (score.bank, score.turn, score.sequence, score.offset)
    return here == (alarm.bank, alarm.turn, alarm.sequence, alarm.offset)


def _drive(trace: Any, named: tuple[str, ...], fail_on_alarm: bool) -> None:
    from emowatch.cli.printing import print_alarms, print_queues
    from emowatch.dispatch import Dispatcher
    from emowatch.plugins import make_plugin_manager
    from emowatch.replaying import replay

    plugins = Dispatcher(make_plugin_manager(chosen_plugins(named, None, "none", log=False)))
    answer = replay(trace, plugins)
    plugins.flush(trace.session)
    print_alarms(answer.alarms)
    print_queues(plugins.counts)
    click.echo(
        f"{answer.tokens} states, {len(answer.alarms)} alarms, {len(answer.wishes)} wishes to steer"
    )
    ends = {(a.turn, a.sequence): a.offset for a in reversed(answer.alarms) if "stop" in a.actions}
    for (turn, sequence), offset in sorted(ends.items()):
        said = trace.reply(turn, sequence)
        if said and said[-1].offset > (offset or 0):
            place = f"turn {turn}" + (f" row {sequence}" if sequence else "")
            click.echo(f"{place} would have ended at token {offset or 0}; the recorded one went on")
    if plugins.failed:
        raise click.exceptions.Exit(Exit.FAILED)
    if fail_on_alarm and answer.alarms:
        raise click.exceptions.Exit(Exit.ALARM)
