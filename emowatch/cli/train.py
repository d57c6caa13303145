"""``emowatch train DATA``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from emowatch.cli.bars import progress, stoppable
from emowatch.cli.options import (
    PLACING,
    READING,
    check_placing,
    data_options,
    folder_option,
    model_options,
    open_model,
    tell_left_out,
)
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line


@click.command()
@click.argument("data")
@folder_option(default="banks/new", show_default=True, help="Folder of the bank.")
@model_options
@data_options
@click.option("--name", help="Name of the bank; default: that of the folder.")
@click.option("--layers", default="all", show_default=True, help="all, 0,9,18 or 25%,50%.")
@click.option(
    "--head", type=click.Choice(["linear", "mlp", "offset-mlp"]), default="mlp", show_default=True
)
@click.option(
    "--readout",
    type=click.Choice(["last_prompt_token", "positions", "mean", "reply"]),
    default="last_prompt_token",
    show_default=True,
    help="Which states are read.",
)
@click.option(
    "--target",
    type=click.Choice(["user", "reply"]),
    default="user",
    show_default=True,
    help="Whose emotion the labels tell: of a user's message, or of a reply (--readout reply).",
)
@click.option(
    "--template/--no-template", default=True, help="Use the chat template if there is one."
)
@click.option(
    "--balancing",
    type=click.Choice(["resample", "weights"]),
    default="resample",
    show_default=True,
    help="As in paper A, or by class weights.",
)
@click.option(
    "--preset",
    type=click.Choice(["default", "paper-a"]),
    default="default",
    show_default=True,
    help="How heads learn; paper-a: one epoch of Adam.",
)
@click.option(
    "--directions",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Hold linear heads to the directions that `vectors build` or `import` wrote.",
)
@click.option("--hidden", type=click.IntRange(1, 4096), help="Width of the hidden layer.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Of replies that are written.",
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(16),
    default=1024,
    show_default=True,
    help="Tokens in a batch.",
)
@click.option(
    "--calibration",
    type=click.FloatRange(0, 0.5),
    default=0.1,
    show_default=True,
    help="Share of the texts for label sets and abstention; 0 for neither.",
)
@click.option("--work", type=click.Path(path_type=Path), help="Keep states and replies here.")
@click.option("--licence", default="", help="Licence of the data, noted on the card.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the bank that the folder holds.")
def command(data: str, out: Path, overwrite: bool, **given: Any) -> None:
    """Train a bank on labelled text.

    DATA is a CSV, TSV, JSONL or Parquet file (also .gz), or a hub data set.
    """
    from emowatch.vectors import Vectors
    from emowatch.workshop.corpora import read_corpus, split_of
    from emowatch.workshop.options import TrainOptions
    from emowatch.workshop.outputs import check_head, check_output, check_target
    from emowatch.workshop.pipeline import train_bank

    reading = {key: given.pop(key) for key in READING}
    placing = {key: given.pop(key) for key in PLACING}
    name, work, named = given.pop("name"), given.pop("work"), given.pop("directions")
    options = TrainOptions(
        positions=(-5, -4, -3, -2, -1) if given["readout"] == "positions" else (-1,),
        directions=None if named is None else Vectors.load(named),
        **given,
    )
    check_target(options)
    check_head(options)
    check_output(out)
    if (out / "probe.safetensors").exists() and not overwrite:
        raise UsageError(
            f"Could not train into {clean_line(str(out))!r}: it holds a bank. Name another folder "
            "with --out, or pass --overwrite to replace it."
        )
    if work is not None:
        check_output(work, "--work")
    check_placing(**placing)
    reading["split"] = split_of(data, reading["split"])
    corpus = read_corpus(data, **reading)
    counts = ", ".join(f"{label} {n}" for label, n in corpus.counts().items())
    click.echo(clean_line(f"{len(corpus)} examples: {counts}"), err=True)
    tell_left_out(corpus, reading["limit"])
    loaded = open_model(**placing)
    with stoppable():
        bank = train_bank(
            corpus, loaded, out, options, name=name, work=work, reading=reading, report=progress
        )
    for note in bank.card.notes:
        click.echo(clean_line(note), err=True)
    if options.calibration and bank.card.uncertainty is None:
        click.echo(
            "no label sets and no abstention: too few texts could be kept for them; with others, "
            "use emowatch calibrate",
            err=True,
        )
    found = float(bank.card.training["validation_balanced_accuracy"])
    click.echo(
        clean(
            f"{out / 'probe.safetensors'}: primary layer {bank.card.primary}, validation balanced "
            f"accuracy {found:.3f} (chance {1 / len(corpus.labels):.3f})"
        )
    )
    click.echo(clean(f"Next: emowatch evaluate {out} TEST-DATA"), err=True)
