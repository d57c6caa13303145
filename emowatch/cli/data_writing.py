"""``emowatch data label | rewrite | synthesize``, which ask a model, and ``templates``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from emowatch.cli.bars import progress
from emowatch.cli.data_jobs import (
    check_out,
    finish,
    gate_options,
    job_options,
    limit_option,
    load_template,
    make_gate,
    opened_job,
    read_to_write,
    template_option,
)
from emowatch.cli.options import folder_option
from emowatch.labels import NEUTRAL
from emowatch.text import clean_line
from emowatch.tui.summary import counted


@click.command()
@click.argument("data")
@job_options(0.0)
@template_option("label")
@limit_option
@click.option("--text-column", help="Column of the text, where it is not found.")
@click.option("--split", help="Of a hub data set; default: train.")
def label(data: str, template: Path | None, **given: Any) -> None:
    """Label texts with a model.

    This is step 1 of Zhang & Zhong. DATA is a CSV, TSV, JSONL or Parquet file, a .txt file with
    one text a line (also .gz), or a hub data set. Labels that it has are not read.
    """
    from emowatch.workshop.building.labelling import label_texts
    from emowatch.workshop.building.texts import read_texts

    check_out(given, "label")
    prompt = load_template("label", template)
    reading = {key: given[key] for key in ("text_column", "encoding", "split", "limit")}
    texts = read_texts(data, **reading)
    for reason, n in texts.aside.items():
        click.echo(f"{counted(n, 'row')} put aside: {reason}", err=True)
    with opened_job(given, data, 0.0) as opened:
        answerer = opened.having()
        stage = opened.job.labeller("label", prompt, given["labels"], answerer)
        built = label_texts(texts, stage, given["labels"], answerer.model, progress)
        finish(built, opened, given, f"rewrite {given['out']}")


@click.command()
@click.argument("data")
@job_options(0.7)
@template_option("rewrite")
@gate_options
@limit_option
@click.option("--from", "origin", default=NEUTRAL, show_default=True, help="Label to rewrite.")
def rewrite(data: str, template: Path | None, origin: str, **given: Any) -> None:
    """Rewrite neutral texts to express an emotion.

    Each is labelled again, and kept if it expresses what was asked for. DATA is a labelled
    file, as `emowatch data label` writes it or as `emowatch train` reads it.
    """
    from emowatch.workshop.building.rewriting import plan, read_rewrite
    from emowatch.workshop.building.rewriting import rewrite as write_texts

    rows, targets, prompt, check = read_to_write(data, "rewrite", template, given, but=origin)
    lots = plan(rows, targets, origin=origin, seed=given["seed"], limit=given["limit"])
    with opened_job(given, data, 0.7) as opened:
        writer = opened.having()
        built = write_texts(
            lots,
            opened.job.stage("rewrite", prompt, read_rewrite, writer),
            make_gate(opened, check, writer, given),
            model=writer.model,
            report=progress,
        )
        finish(built, opened, given, f"synthesize {data}")


@click.command()
@click.argument("data")
@job_options(1.0)
@template_option("synthesize")
@gate_options
@click.option(
    "--per-label", type=click.IntRange(1), default=100, show_default=True, help="Texts to write."
)
@click.option(
    "--shots", type=click.IntRange(1, 50), default=5, show_default=True, help="Examples shown."
)
def synthesize(data: str, template: Path | None, per_label: int, shots: int, **given: Any) -> None:
    """Write new texts after a few examples.

    Each is labelled again, and kept if it expresses what was asked for. DATA is a labelled
    file, as `emowatch data label` writes it or as `emowatch train` reads it.
    """
    from emowatch.workshop.building.synthesis import plan, read_generation
    from emowatch.workshop.building.synthesis import synthesize as write_texts

    rows, targets, prompt, check = read_to_write(data, "synthesize", template, given, but=NEUTRAL)
    wishes = plan(rows, targets, per_label=per_label, shots=shots, seed=given["seed"])
    with opened_job(given, data, 1.0) as opened:
        writer = opened.having()
        built = write_texts(
            wishes,
            opened.job.stage("synthesize", prompt, read_generation, writer),
            make_gate(opened, check, writer, given),
            model=writer.model,
            report=progress,
        )
        finish(built, opened, given, f"filter {data} {given['out']}")


@click.command()
@folder_option()
@click.option("--overwrite", is_flag=True, help="Replace templates that are there.")
def templates(out: Path, overwrite: bool) -> None:
    """Copy the prompts, to be edited.

    An edited one is named with --template, or --label-template where texts are checked.
    """
    from emowatch.workshop.building.prompting import KINDS, PLACEHOLDERS, write_templates

    for kind, path in zip(KINDS, write_templates(out, overwrite=overwrite), strict=True):
        placed = ", ".join(f"{{{{ {name} }}}}" for name in PLACEHOLDERS[kind])
        click.echo(clean_line(f"{path}: may place {placed}"))
