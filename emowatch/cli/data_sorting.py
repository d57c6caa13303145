"""``emowatch data filter | split | card``, which ask nobody."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.bars import progress, stoppable
from emowatch.cli.data_jobs import read_labelled
from emowatch.cli.options import READING, data_options, folder_option
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line

if TYPE_CHECKING:
    from emowatch.workshop.building.rows import CorpusRow, Dropped

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("filter")
@click.argument("data", nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, metavar="FILE", help="JSON lines to write.")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@click.option(
    "--min-words", type=click.IntRange(0), default=3, show_default=True, help="Of a text, at least."
)
@click.option("--any-language", is_flag=True, help="Keep what is not English, too.")
@click.option(
    "--near",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    help="Jaccard similarity of near duplicates; 1 keeps all but exact ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Figures as one JSON object.")
@data_options
def filter_(
    data: tuple[str, ...],
    out: Path,
    overwrite: bool,
    min_words: int,
    any_language: bool,
    near: float,
    as_json: bool,
    **reading: Any,
) -> None:
    """Merge files and drop what is of no use.

    That is what is not English, too short, or there already. DATA are labelled files; of
    duplicates the first is kept, so name natural texts first.
    """
    from emowatch.workshop.building.filtering import FilterOptions, filter_rows
    from emowatch.workshop.building.rows import check_out, quarantine_beside, write_rows

    check_out(out, overwrite=overwrite)
    check_out(quarantine_beside(out), overwrite=overwrite)
    rows, unusable = _read(data, reading)
    options = FilterOptions(min_words=min_words, language=not any_language, near=near)
    with stoppable(kept=False):
        found = filter_rows(rows, options, progress)
    aside = quarantine_beside(out)
    write_rows(aside, [*unusable, *found.dropped])
    write_rows(out, found.rows)
    told = found.as_object()
    reasons = Counter(one.reason for one in unusable) + Counter(told["dropped"])
    told["dropped"] = dict(reasons.most_common())
    if as_json:
        click.echo(json.dumps({"out": str(out), **told}))
    else:
        click.echo(clean(f"{out}: {len(found.rows):,} of {len(rows) + len(unusable):,} rows"))
        for reason, n in told["dropped"].items():
            click.echo(f"  {reason:<20} {n:,}")
    click.echo(clean(f"what was left out, and why, is in {aside}"), err=True)
    if not found.rows:
        raise UsageError("Could not keep a single row: see the reasons above.")
    click.echo(clean(f"Next: emowatch data split {out} --out DIR"), err=True)


@click.command()
@click.argument("data", nargs=-1, required=True)
@folder_option(help="Folder of train.jsonl, test.jsonl and validation.jsonl.")
@click.option("--overwrite", is_flag=True, help="Replace these files.")
@click.option(
    "--test",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the test side.",
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of the validation side; 0 for none.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Figures as one JSON object.")
@data_options
def split(
    data: tuple[str, ...],
    out: Path,
    overwrite: bool,
    test: float,
    validation: float,
    seed: int,
    as_json: bool,
    **reading: Any,
) -> None:
    """Split a corpus by parent.

    No text's parent, examples or copies are on the other side.
    """
    from emowatch.workshop.building.splitting import (
        check_folder,
        fractions_of,
        render_split,
        split_rows,
        write_split,
    )

    fractions = fractions_of(test=test, validation=validation)
    check_folder(out, overwrite=overwrite)
    rows, _ = _read(data, reading)
    found = split_rows(rows, fractions, seed)
    write_split(out, found)
    if as_json:
        told = {"out": str(out), "groups": found.groups, "largest_group": found.largest}
        click.echo(json.dumps({**told, "sides": found.counts()}))
    else:
        click.echo(clean(render_split(str(out), found)))
    click.echo(clean(f"Next: emowatch train {out / 'train.jsonl'} --out banks/mine"), err=True)


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--plot", type=FILE, metavar="FILE", help="Draw the lengths, as .svg, .png or .pdf.")
@data_options
def card(data: tuple[str, ...], as_json: bool, plot: Path | None, **reading: Any) -> None:
    """Tell what a corpus holds.

    Labels by provenance, lengths by label, and the sources, models and templates.
    """
    from emowatch.workshop.building.describing import describe, draw_lengths, render

    rows, _ = _read(data, reading)
    found = describe(rows)
    if plot is not None:
        draw_lengths(rows, plot)
    named = clean_line(", ".join(data), 60)
    click.echo(json.dumps(found.as_object()) if as_json else clean(render(found, named)))
    if plot is not None:
        click.echo(clean(f"drawn to {plot}"), err=True)


def _read(data: Sequence[str], reading: Mapping[str, Any]) -> tuple[list[CorpusRow], list[Dropped]]:
    """Read and join files: their rows, and what cannot be used of them."""
    files = [read_labelled(source, **{key: reading[key] for key in READING}) for source in data]
    if not any(one.rows for one in files):
        raise UsageError(f"Could not use {clean_line(', '.join(data), 200)}: there are no rows.")
    return [r for one in files for r in one.rows], [d for one in files for d in one.put_aside]
