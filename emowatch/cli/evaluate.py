"""``emowatch evaluate BANK DATA``, and ``emowatch evaluate BANK --on SET`` for foreign labels."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.bars import progress, stoppable
from emowatch.cli.options import (
    PLACING,
    READING,
    check_placing,
    data_options,
    model_options,
    open_model,
    tell_left_out,
)
from emowatch.cli.transferring import check_use, read_sets, show_transfers
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line

if TYPE_CHECKING:
    from emowatch.bank.probe_bank import ProbeBank
    from emowatch.model.loading import LoadedModel
    from emowatch.workshop.keywords import Keywords


@click.command()
@click.argument("bank")
@click.argument("data", required=False)
@click.option(
    "--on",
    "sets",
    multiple=True,
    metavar="SET[,KEY=VALUE…]",
    help="Set with labels of its own; repeatable. Keys are options of reading, as encoding.",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="PAIRS|FILE",
    help="What labels of a SET stand for: 'happiness=joy,trust=-', or a JSON file; repeatable.",
)
@model_options
@data_options
@click.option("--train-data", help="What the bank learned from, where its folder does not tell.")
@click.option(
    "--keywords",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Words that name each label, as JSON, instead of the built-in ones.",
)
@click.option(
    "--keyword-free/--no-keyword-free",
    default=True,
    help="Measure again with such words masked; the changed texts are read twice more.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write figures to this folder.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep states and replies here.")
@click.option("--save", is_flag=True, help="Write the figures into the bank's card.")
@click.option("--strict", is_flag=True, help="Refuse a model of other weights or text.")
def command(
    bank: str,
    data: str | None,
    sets: tuple[str, ...],
    maps: tuple[str, ...],
    as_json: bool,
    save: bool,
    strict: bool,
    plot: Path | None,
    work: Path | None,
    train_data: str | None,
    keywords: Path | None,
    keyword_free: bool,
    **given: Any,
) -> None:
    """Measure a bank on labelled text.

    Beside each figure stand chance, TF-IDF with logistic regression, and heads fitted to
    shuffled labels; intervals are 95 %, by bootstrap.

    With --on instead of DATA, one table for sets that were labelled with other names, under an
    explicit map of them.
    """
    from emowatch.bank import load_bank
    from emowatch.workshop.corpora import read_corpus, split_of
    from emowatch.workshop.figures import draw_figures, require_matplotlib
    from emowatch.workshop.measuring import open_bench
    from emowatch.workshop.outputs import check_output
    from emowatch.workshop.pipeline import evaluate_bank, save_evaluation
    from emowatch.workshop.tables import as_json_object, render_evaluation

    check_use(data, sets, maps, plot=plot, save=save)
    if plot is not None:
        require_matplotlib()
        check_output(plot, "--plot")
    if work is not None:
        check_output(work, "--work")
    found = load_bank(bank)
    labels = found.card.labels
    folder = _folder(bank, save)
    where = {key: given.pop(key) for key in PLACING}
    check_placing(**where)
    reading = {key: given.pop(key) for key in READING}
    words = _keywords(keywords, labels) if keyword_free else None
    training = None
    if train_data is not None:
        whole = reading | {"limit": None, "split": None}
        training = read_corpus(train_data, labels=labels, min_per_class=0, **whole)
    if data is None:
        corpora = read_sets(sets, maps, labels, reading)
        loaded = _model(found, strict, where)
        with _kept(work) as folder_of_work:
            bench = open_bench(
                found, loaded, folder=folder, training=training, options=None, report=progress
            )
            show_transfers(bench, corpora, folder_of_work, words, as_json=as_json)
        return
    reading["split"] = split_of(data, reading["split"], "test")
    corpus = read_corpus(data, labels=labels, min_per_class=0, **reading)
    tell_left_out(corpus, reading["limit"])
    loaded = _model(found, strict, where)
    with _kept(work) as folder_of_work:
        evaluation = evaluate_bank(
            found,
            corpus,
            loaded,
            folder=folder,
            training=training,
            work=folder_of_work,
            keywords=words,
            report=progress,
        )
    if plot is not None:
        for path in draw_figures(found.card, evaluation, plot):
            click.echo(f"wrote {clean(str(path))}", err=True)
    if as_json:
        click.echo(json.dumps(as_json_object(found.card, asdict(evaluation))))
    else:
        click.echo(clean(render_evaluation(found.card, evaluation)))
    if save and folder is not None:  # last: a folder that cannot be written costs no figures
        save_evaluation(found, evaluation, folder)
        click.echo(f"wrote the figures into {clean(str(folder))}", err=True)


def _folder(bank: str, save: bool) -> Path | None:
    """Find the folder of a bank; refuse to save into one that was only named."""
    from emowatch.bank import list_banks

    path = Path(os.path.expanduser(bank))
    folder = path if path.exists() else list_banks().get(bank)
    if folder is not None and folder.is_file():
        folder = folder.parent
    if save and not path.exists():  # named, not pointed at: shipped with the package, or a hub's
        copied = f"Copy {clean(str(folder))}" if folder else "Download it to a folder"
        raise UsageError(
            f"Could not save the figures of {clean_line(bank)!r}: a bank is changed only where "
            f"its folder or file is named. {copied}, and name that."
        )
    return folder


def _keywords(path: Path | None, labels: tuple[str, ...]) -> Keywords:
    """Read the keywords named, or give those built in."""
    from emowatch.workshop.keywords import keywords_for, read_keywords

    return keywords_for(labels) if path is None else read_keywords(path, labels)


def _model(bank: ProbeBank, strict: bool, where: dict[str, Any]) -> LoadedModel:
    """Load the model, and hold it to the bank where that was asked for."""
    from emowatch.model.blocks import find_blocks

    loaded = open_model(**where)
    if strict:  # without it, what differs is said in the note below the figures
        blocks = find_blocks(loaded.model, loaded.blocks)
        bank.check_fits(loaded.model, blocks, loaded.tokenizer, model_name=loaded.name, strict=True)
    return loaded


@contextmanager
def _kept(work: Path | None) -> Iterator[Path]:
    """Give the folder for states and replies: the one named, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory() as temporary, stoppable(kept=work is not None):
        yield work or Path(temporary)
