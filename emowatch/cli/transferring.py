"""``--on`` and ``--map`` of ``emowatch evaluate``: sets that others labelled."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.options import tell_left_out
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line

if TYPE_CHECKING:
    from emowatch.workshop.corpora import Corpus
    from emowatch.workshop.keywords import Keywords
    from emowatch.workshop.measuring import Bench

KEYS = ("text-column", "label-column", "group-column", "several", "encoding", "split", "limit")
"""What may follow a SET: the options of the same names, for this set alone."""
_KEYED = re.compile(r",\s*([a-z-]+)\s*=\s*([^,]*)$")


def check_use(
    data: str | None,
    sets: tuple[str, ...],
    maps: tuple[str, ...],
    *,
    plot: Path | None,
    save: bool,
) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: saying which.
    """
    if data is None and not sets:
        raise UsageError(
            "Could not measure a bank on nothing. Name labelled text: a file or hub data set with "
            "the bank's labels, or --on SET for one with other labels."
        )
    if data is not None and (sets or maps):
        raise UsageError(
            f"Could not measure on {clean_line(data, 80)!r} and on other labels at once: --on and "
            f"--map make a table of sets. Name it as a set too, --on {clean_line(data, 80)}, or "
            "leave --on and --map out."
        )
    if sets and (save or plot):
        raise UsageError(
            f"Could not use {'--save' if save else '--plot'} with --on: a card and its figures "
            "are of one test set with the bank's own labels. Use --json to keep these."
        )


def read_sets(
    sets: tuple[str, ...], maps: tuple[str, ...], labels: tuple[str, ...], reading: dict[str, Any]
) -> list[Corpus]:
    """Read every set under the map, before any is measured.

    Raises:
        UsageError: for a map or a key that cannot be used.
        CorpusError: for a set that cannot be read, or has labels of which the map says nothing.
    """
    from emowatch.workshop.corpora import parse_maps, read_corpus, split_of

    label_map = parse_maps(maps, labels)
    corpora = []
    for one in sets:
        source, own = parse_set(one)
        options = reading | own
        options["split"] = split_of(source, options["split"], "test")
        corpus = read_corpus(source, label_map=label_map, min_per_class=0, **options)
        click.echo(clean_line(f"{source}: {len(corpus)} examples"), err=True)
        tell_left_out(corpus, options["limit"])
        corpora.append(corpus)
    met = {label.casefold() for corpus in corpora for label in corpus.translated}
    if unused := [name for key, name in label_map.names.items() if key not in met and key != "*"]:
        shown = ", ".join(unused[:20]) + (f" and {len(unused) - 20} more" if unused[20:] else "")
        click.echo(clean_line(f"--map names what no set has: {shown}"), err=True)
    return corpora


def parse_set(given: str) -> tuple[str, dict[str, Any]]:
    """Split ``SET,key=value,…`` into the set and its options.

    Raises:
        UsageError: for a key there is not or that is there twice, or a value it cannot have.
    """
    shown = f"Could not read --on {clean_line(given, 120)!r}"
    source = given
    own: dict[str, Any] = {}
    while match := _KEYED.search(source):
        key, value = match.group(1), match.group(2).strip()
        name = key.replace("-", "_")
        if key not in KEYS or name in own:
            wrong = "is there twice" if name in own else "is unknown"
            raise UsageError(
                f"{shown}: the key {clean_line(key, 40)!r} {wrong}. What may follow a set, each "
                f"once: {', '.join(f'{known}=…' for known in KEYS)}."
            )
        own[name] = value
        source = source[: match.start()]
    if own.get("several", "first") not in ("quarantine", "each", "first"):
        raise UsageError(f"{shown}: several is quarantine, each or first.")
    if "limit" in own:
        if not re.fullmatch(r"[1-9]\d{0,8}", own["limit"]):
            raise UsageError(f"{shown}: limit is a number of examples, from 1 on.")
        own["limit"] = int(own["limit"])
    return source, own


def show_transfers(
    bench: Bench,
    corpora: list[Corpus],
    work: Path,
    keywords: Keywords | None,
    *,
    as_json: bool,
) -> None:
    """Measure the bank on each set and print one table, or one JSON object."""
    from emowatch.workshop.transfer import measure_transfer
    from emowatch.workshop.transfer_tables import render_transfers, transfers_as_json

    card = bench.bank.card
    found = []
    for number, corpus in enumerate(corpora, 1):
        folder = work / f"set-{number}"
        found.append(measure_transfer(bench, corpus, folder, keywords=keywords))
    if as_json:
        click.echo(json.dumps(transfers_as_json(card, found)))
    else:
        click.echo(clean(render_transfers(card, found)))
