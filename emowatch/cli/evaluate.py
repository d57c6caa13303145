"""``emowatch evaluate BANK DATA``."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from emowatch.cli.bars import progress, stoppable
from emowatch.cli.options import (
    PLACING,
    check_placing,
    data_options,
    model_options,
    open_model,
    tell_left_out,
)
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line


@click.command()
@click.argument("bank")
@click.argument("data")
@model_options
@data_options
@click.option("--train-data", help="What the bank learned from, where its folder does not tell.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write figures to this folder.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep states and replies here.")
@click.option("--save", is_flag=True, help="Write the figures into the bank's card.")
@click.option("--strict", is_flag=True, help="Refuse a model of other weights or text.")
def command(bank: str, data: str, as_json: bool, save: bool, strict: bool, **given: Any) -> None:
    """Measure a bank on labelled text.

    Beside each figure stand chance, TF-IDF with logistic regression, and heads fitted to
    shuffled labels; intervals are 95 %, by bootstrap.
    """
    from emowatch.bank import list_banks, load_bank
    from emowatch.model.blocks import find_blocks
    from emowatch.workshop.corpora import read_corpus, split_of
    from emowatch.workshop.figures import draw_figures, require_matplotlib
    from emowatch.workshop.outputs import check_output
    from emowatch.workshop.pipeline import evaluate_bank, save_evaluation
    from emowatch.workshop.tables import as_json_object, render_evaluation

    plot, work, train_data = given.pop("plot"), given.pop("work"), given.pop("train_data")
    if plot is not None:
        require_matplotlib()
        check_output(plot, "--plot")
    if work is not None:
        check_output(work, "--work")
    found = load_bank(bank)
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
    where = {key: given.pop(key) for key in PLACING}
    check_placing(**where)
    given["split"] = split_of(data, given["split"], "test")
    corpus = read_corpus(data, labels=found.card.labels, min_per_class=0, **given)
    tell_left_out(corpus, given["limit"])
    training = None
    if train_data is not None:
        whole = given | {"limit": None, "split": None}
        training = read_corpus(train_data, labels=found.card.labels, min_per_class=0, **whole)
    loaded = open_model(**where)
    if strict:  # without it, what differs is said in the note below the figures
        blocks = find_blocks(loaded.model, loaded.blocks)
        found.check_fits(
            loaded.model, blocks, loaded.tokenizer, model_name=loaded.name, strict=True
        )
    with tempfile.TemporaryDirectory() as temporary, stoppable(kept=work is not None):
        evaluation = evaluate_bank(
            found,
            corpus,
            loaded,
            folder=folder,
            training=training,
            work=work or Path(temporary),
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
