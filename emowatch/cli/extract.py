"""``emowatch extract DATA``."""

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
from emowatch.text import clean


@click.command()
@click.argument("data")
@folder_option(help="Folder of the shards.")
@model_options
@data_options
@click.option("--layers", default="all", show_default=True, help="all, 0,9,18 or 25%,50%.")
@click.option(
    "--readout",
    type=click.Choice(["last_prompt_token", "positions", "mean", "reply"]),
    default="last_prompt_token",
    show_default=True,
)
@click.option(
    "--template/--no-template", default=True, help="Use the chat template if there is one."
)
@click.option("--batch-tokens", type=click.IntRange(16), default=1024, show_default=True)
@click.option("--max-new-tokens", type=click.IntRange(1), default=128, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def command(data: str, out: Path, layers: str, **given: Any) -> None:
    """Read the states of labelled text into shards.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from emowatch.model.blocks import find_blocks, resolve_layers
    from emowatch.workshop.corpora import read_corpus
    from emowatch.workshop.extraction import extract
    from emowatch.workshop.options import TrainOptions
    from emowatch.workshop.outputs import check_output
    from emowatch.workshop.preparation import prepare, write_rows

    check_output(out)
    placing = {key: given.pop(key) for key in PLACING}
    check_placing(**placing)
    limit = given["limit"]
    corpus = read_corpus(data, min_per_class=0, **{key: given.pop(key) for key in READING})
    tell_left_out(corpus, limit)
    loaded = open_model(**placing)
    blocks = find_blocks(loaded.model, loaded.blocks)
    chosen = resolve_layers(layers, blocks.n_layers)
    positions = (-5, -4, -3, -2, -1) if given["readout"] == "positions" else (-1,)
    options = TrainOptions(positions=positions, **given)
    with stoppable():
        prepared = prepare(corpus, loaded, options, out, progress)
        for left_out, n in prepared.left_out.items():
            click.echo(f"{n} texts put aside: {left_out}", err=True)
        activations = extract(
            loaded.model,
            blocks,
            prepared.passages,
            chosen,
            out,
            batch_tokens=options.batch_tokens,
            progress=lambda done, total: progress("reading states", done, total),
        )
    write_rows(out / "rows.jsonl", corpus, prepared)  # now that the folder is known to be ours
    click.echo(
        clean(
            f"{out}: {len(activations)} states of {activations.d_model} numbers at layers "
            f"{', '.join(map(str, activations.layers))}"
        )
    )
