"""``emowatch vectors build | show | export | import``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from emowatch.cli.bars import progress, stoppable
from emowatch.cli.options import (
    PLACING,
    READING,
    Function,
    check_placing,
    data_options,
    model_options,
    open_model,
    tell_left_out,
)
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line

NEW_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def command() -> None:
    """Make directions from labelled text, to steer or read; swap them with llama.cpp."""


def _new_file(help_: str) -> Callable[[Function], Function]:
    """Add ``--out FILE``, and ``--overwrite``."""

    def add(function: Function) -> Function:
        function = click.option("--overwrite", is_flag=True, help="Replace the file.")(function)
        return click.option("--out", type=NEW_FILE, required=True, metavar="FILE", help=help_)(
            function
        )

    return add


@command.command()
@click.argument("data")
@_new_file("Vectors to write.")
@model_options
@data_options
@click.option("--layers", default="all", show_default=True, help="all, 0,9,18 or 25%,50%.")
@click.option(
    "--readout",
    type=click.Choice(["last_prompt_token", "mean"]),
    default="mean",
    show_default=True,
    help="Which states of a text count.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the two halves."
)
def build(
    data: str, out: Path, overwrite: bool, layers: str, readout: Any, seed: int, **given: Any
) -> None:
    """Make a direction for each label of DATA: its mean state minus the mean over labels.

    Prints how far the directions of two halves of the texts agree, beside halves with shuffled
    labels. States are kept in a folder beside the file until it is written.
    """
    from emowatch.workshop.activations import discard
    from emowatch.workshop.corpora import read_corpus
    from emowatch.workshop.directions import build_vectors
    from emowatch.workshop.options import TrainOptions
    from emowatch.workshop.outputs import STATES_FOLDER

    _check_new(out, overwrite)
    placing = {key: given.pop(key) for key in PLACING}
    check_placing(**placing)
    corpus = read_corpus(data, **{key: given[key] for key in READING})
    tell_left_out(corpus, given["limit"])
    loaded = open_model(**placing)
    work = out.with_name(f"{out.name}.work")
    with stoppable():
        made = build_vectors(
            corpus,
            loaded,
            TrainOptions(layers=layers, readout=readout, seed=seed),
            work,
            report=progress,
        )
    made.save(out)
    discard(work / STATES_FOLDER)
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()
    click.echo(clean(f"{out}: {', '.join(made.labels)} at {len(made.layers)} layers"))
    _show(out)
    found = made.data["agreement"]
    surest = max(range(len(made.labels)), key=lambda place: sum(row[place] for row in found))
    click.echo(
        clean(f"Next: emowatch chat --plugin steer:file={out},direction={made.labels[surest]}"),
        err=True,
    )


@command.command()
@click.argument("file", type=NEW_FILE)
def show(file: Path) -> None:
    """Print what FILE holds, with the names that its directions have in traces."""
    from emowatch.vectors import Vectors

    held = Vectors.load(file)
    click.echo(clean(f"{held.method}, for {held.model or 'a model that is not named'}"))
    _show(file)
    for layer in held.layers:
        names = " ".join(f"{label}={held.name_of(label, layer)}" for label in held.labels)
        click.echo(clean(f"layer {layer}: {names}"))


def _show(path: Path) -> None:
    """Print the length of states and, where it was measured, how far halves agree."""
    from emowatch.vectors import Vectors

    held = Vectors.load(path)
    found, null = held.data.get("agreement"), held.data.get("agreement_of_shuffled")
    if not found or not null:
        return
    width = max(map(len, held.labels))
    click.echo("cosine of the directions of two halves (of halves with shuffled labels)")
    click.echo(clean("layer   rms " + " ".join(label.rjust(width + 6) for label in held.labels)))
    for place, layer in enumerate(held.layers):
        cells = " ".join(
            f"{one:.2f} ({other:+.2f})".rjust(width + 6)
            for one, other in zip(found[place], null[place], strict=True)
        )
        click.echo(f"{layer:>5} {held.rms[place]:>5.2f} {cells}")


@command.command("export")
@click.argument("file", type=NEW_FILE)
@_new_file("GGUF file to write.")
@click.option("--label", required=True, help="Whose direction.")
@click.option("--layers", required=True, metavar="5,6", help="At which layers, from 2 on.")
@click.option(
    "--strength",
    type=float,
    default=1.0,
    show_default=True,
    help="In units of the residual's RMS, at a scale of 1 in llama.cpp.",
)
@click.option("--hint", default="llama", show_default=True, help="llama.cpp's architecture.")
def export_(
    file: Path,
    out: Path,
    overwrite: bool,
    label: str,
    layers: str,
    strength: float,
    hint: str,
) -> None:
    """Write one label of FILE as a control vector of llama.cpp (GGUF)."""
    from emowatch.vectors import Vectors
    from emowatch.vectors.gguf import export_gguf

    _check_new(out, overwrite)
    if not 0 < abs(strength) < float("inf"):
        raise UsageError(
            f"Could not export with --strength {strength:g}: a finite number other than 0 is "
            "needed."
        )
    export_gguf(Vectors.load(file), label, _numbers(layers), strength, out, hint)
    click.echo(clean(f"{out}: {label} at layers {layers}, strength {strength:g}"))
    click.echo(clean(f"Next: llama-cli -m MODEL.gguf --control-vector {out}"), err=True)


@command.command("import")
@click.argument("file", type=NEW_FILE)
@_new_file("Vectors to write.")
@click.option("--label", required=True, help="What to call the direction.")
def import_(file: Path, out: Path, overwrite: bool, label: str) -> None:
    """Read a control vector of llama.cpp or repeng (GGUF) into vectors for `steer`."""
    from emowatch.vectors.gguf import import_gguf

    _check_new(out, overwrite)
    made = import_gguf(file, label)
    made.save(out)
    click.echo(clean(f"{out}: {label} at layers {', '.join(map(str, made.layers))}"))
    click.echo(clean(f"Next: emowatch chat --plugin steer:file={out},direction={label}"), err=True)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"Could not read --layers {clean_line(text)!r}: numbers are needed, as in 5,6."
        ) from None


def _check_new(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise UsageError(
            f"Could not write {clean_line(str(out))!r}: it is there already. Name another file, "
            "or pass --overwrite."
        )
    if not out.absolute().parent.is_dir():
        raise UsageError(
            f"Could not write {clean_line(str(out))!r}: there is no such folder. Make it first."
        )
