"""``emowatch logs``: what was said and scored, as the plugin ``sqlite-log`` wrote it."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from emowatch.config import home
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line

OFF, ON = "off", "on"
SWITCH = "logging"
"""File in the folder of the user's data that says whether commands log by themselves."""


def is_on() -> bool:
    """Tell whether ``run`` and ``chat`` log without being asked."""
    try:
        return (home() / SWITCH).read_text(encoding="ascii").strip() == ON
    except OSError:
        return False


@click.group(invoke_without_command=True)
@click.option("-n", "--count", type=click.IntRange(0), default=3, show_default=True, help="0: all.")
@click.option("-c", "--current", is_flag=True, help="Of the newest conversation.")
@click.option("--cid", "thread", metavar="ID", help="Of one conversation.")
@click.option("-q", "--query", help="Whose reply holds these words (logged with --content full).")
@click.option("-m", "--model", help="Of one model.")
@click.option("--id-gt", "after", metavar="ID", help="Later than this turn.")
@click.option(
    "--min", "minima", multiple=True, metavar="LABEL=SCORE", help="Reached at some token."
)
@click.option("--alarms", "with_alarms", is_flag=True, help="With an alarm.")
@click.option("-r", "--response", is_flag=True, help="The newest reply's text alone.")
@click.option("-s", "--short", is_flag=True, help="A line for each turn.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV, a column for each mean score.")
@click.option("--parquet", type=click.Path(path_type=Path, dir_okay=False), help="Write this file.")
@click.option("-d", "--database", type=click.Path(path_type=Path, dir_okay=False), help="Log file.")
@click.pass_context
def command(context: click.Context, /, database: Path | None, **given: Any) -> None:
    """Show logged turns, oldest first."""
    context.obj = database
    if context.invoked_subcommand is not None:
        return
    from emowatch.logbook import Asked, connect, default_path, read_turns
    from emowatch.logbook.exporting import write_csv, write_parquet

    shown = {name: given.pop(name) for name in ("response", "short", "as_json", "as_csv")}
    parquet: Path | None = given.pop("parquet")
    forms = [name for name in ("response", "short", "as_json", "as_csv") if shown[name]]
    if len(forms) + (parquet is not None) > 1:
        raise click.UsageError("Choose one of --response, --short, --json, --csv and --parquet.")
    minima = dict(map(_minimum, given.pop("minima")))
    current = given.pop("current")
    if shown["response"]:
        given["count"] = 1
    asked = Asked(minima=minima, newest_thread=current, **given)
    with closing(connect(database or default_path())) as log:
        turns = list(read_turns(log, asked))
    if parquet is not None:
        write_parquet(turns, parquet)
        click.echo(clean(f"wrote {len(turns)} turns to {parquet}"), err=True)
    elif shown["as_json"]:
        click.echo(json.dumps([asdict(turn) for turn in turns], indent=1))
    elif shown["as_csv"]:
        write_csv(turns, sys.stdout)
    elif shown["response"]:
        for turn in turns:
            click.echo(clean(turn.response) if turn.response is not None else _no_text())
    else:
        for turn in turns:
            _print(turn, short=shown["short"])
        if not turns:
            click.echo(f"no such turns{_where_texts_are(asked.query)}", err=True)


@command.command()
@click.pass_obj
def path(database: Path | None) -> None:
    """Print where the log is, whether or not there is one yet."""
    from emowatch.logbook import default_path

    click.echo(clean(str(database or default_path())))


@command.command()
@click.pass_obj
def status(database: Path | None) -> None:
    """Say whether logging is on, and how much there is."""
    from emowatch.logbook import connect, default_path

    place = database or default_path()
    click.echo(f"logging is {ON if is_on() else OFF}")
    click.echo(clean(f"log {place}"))
    if not place.exists():
        click.echo("nothing is logged yet")
        return
    with closing(connect(place)) as log:
        for name in ("threads", "turns", "tokens", "scores", "alarms"):
            rows = name
            if name == "tokens":  # each probe has a row of its own
                rows = "(SELECT DISTINCT turn, position FROM tokens)"
            (count,) = log.execute(f"SELECT count(*) FROM {rows}").fetchone()
            click.echo(f"{name} {count}")
        (open_turns,) = log.execute("SELECT count(*) FROM turns WHERE NOT complete").fetchone()
    click.echo(f"incomplete turns {open_turns}")
    click.echo(f"size {place.stat().st_size / 1e6:.1f} MB")


@command.command()
def on() -> None:
    """Let run and chat log every session; scores alone, and no text."""
    _switch(ON)


@command.command()
def off() -> None:
    """Let run and chat log only where --log asks for it; the default."""
    _switch(OFF)


@command.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def backup(database: Path | None, target: Path) -> None:
    """Write a copy of the whole log to TARGET, while others may be writing."""
    from emowatch.logbook import connect, default_path

    if target.exists():
        raise UsageError(f"Could not back up to {clean_line(str(target))!r}: it is there already.")
    with closing(connect(database or default_path())) as log:
        try:
            with closing(sqlite3.connect(target)) as copy:
                log.backup(copy)
        except sqlite3.Error as error:
            raise UsageError(
                f"Could not back up to {clean_line(str(target))!r}: {clean_line(str(error))}."
            ) from error
    target.chmod(0o600)
    click.echo(clean(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)"), err=True)


def _switch(state: str) -> None:
    folder = home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / SWITCH).write_text(f"{state}\n", encoding="ascii")
    click.echo(f"logging is {state}", err=True)


def _minimum(text: str) -> tuple[str, float]:
    label, equals, value = text.rpartition("=")
    try:
        least = float(value)
    except ValueError:
        least = float("nan")
    if not equals or not label or not 0 <= least <= 1:
        raise UsageError(
            f"Could not read --min {clean_line(text)!r}: it is a label and a score from 0 to 1, as "
            "in --min joy=0.8."
        )
    return label.strip(), least


def _print(turn: Any, *, short: bool) -> None:
    ended = turn.finish_reason if turn.complete else "INCOMPLETE: its end was never written"
    tokens = "" if turn.output_tokens is None else f"{turn.output_tokens} tokens, "
    row = f" row {turn.sequence}" if turn.sequence else ""
    alarms = f" · {len(turn.alarms)} alarms" if turn.alarms else ""
    head = f"{turn.id}  {turn.datetime_utc}  {turn.model}  turn {turn.turn}{row}  {tokens}{ended}"
    steered = " · steered" if any(not one["shadow"] for one in turn.steerings) else ""
    click.echo(clean_line(f"{head}{alarms}{steered}"))
    if short:
        return
    for probe, scores in turn.means.items():
        known = [(label, score) for label, score in scores.items() if score is not None]
        best = sorted(known, key=lambda pair: -pair[1])[:4]
        told = ", ".join(f"{label} {score:.2f}" for label, score in best)
        click.echo(f"  {clean_line(probe)}: {clean_line(told)}")
    for alarm in turn.alarms:
        score = "" if alarm["score"] is None else f", {alarm['score']:.2f}"
        line = f"alarm ({alarm['level']}) at offset {alarm['offset']}: {alarm['rule']}{score}"
        click.echo(f"  {clean_line(line)}")
    for one in turn.steerings:
        how = "would have steered" if one["shadow"] else "steered"
        line = (
            f"{one['plugin']} {how} {one['direction']} at layer {one['layer']}: "
            f"{one['mode']}, strength up to {one['most']:.2f}"
        )
        click.echo(f"  {clean_line(line)}")
    if turn.response:
        click.echo(clean(turn.response))
    click.echo()


def _where_texts_are(query: str | None) -> str:
    return "" if query is None else "; -q looks into replies that were logged with --content full"


def _no_text() -> str:
    raise UsageError(
        "Could not show the reply: its text was not logged. Log with --content full to keep text."
    )
