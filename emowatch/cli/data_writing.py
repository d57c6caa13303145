"""``emowatch data label | rewrite | synthesize``, which ask a model, and ``templates``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from emowatch.cli.answering import PRICES, asking_options, open_answerer
from emowatch.cli.bars import progress, stoppable
from emowatch.cli.options import Function, folder_option
from emowatch.errors import UsageError
from emowatch.labels import EKMAN7, NEUTRAL, check_labels
from emowatch.text import clean, clean_line

if TYPE_CHECKING:
    from emowatch.workshop.building.answering import Answerer
    from emowatch.workshop.building.built import Built
    from emowatch.workshop.building.jobs import Job
    from emowatch.workshop.building.prompting import Kind, PromptTemplate

FILE = click.Path(path_type=Path, dir_okay=False)


def _labels(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        return check_labels([name.strip() for name in value.split(",")])
    except ValueError as error:
        raise UsageError(f"Could not use {option.opts[0]}: {error}.") from error


def _template(kind: str, flag: str = "--template") -> Callable[[Function], Function]:
    return click.option(
        flag, type=FILE, metavar="FILE", help=f"Prompt to {kind}; default: the built-in one."
    )


def _job_options(temperature: float) -> Callable[[Function], Function]:
    """Add what every step that asks a model has."""
    options = (
        click.option(
            "--out", type=FILE, required=True, metavar="FILE", help="JSON lines to write."
        ),
        click.option("--overwrite", is_flag=True, help="Replace the file."),
        click.option(
            "--work", type=click.Path(path_type=Path), help="Keep answers in this folder."
        ),
        click.option(
            "--labels",
            callback=_labels,
            default=",".join(EKMAN7),
            show_default=True,
            help="What a text may be labelled.",
        ),
        click.option("--limit", type=click.IntRange(1), help="At most so many texts; a sample."),
        click.option("--encoding", default="utf-8", show_default=True),
        click.option("--json", "as_json", is_flag=True, help="Figures as one JSON object."),
    )

    def add(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return asking_options(temperature)(function)

    return add


def _gate_options(function: Function) -> Function:
    """Add what says how written texts are checked."""
    for option in reversed(
        (
            click.option(
                "--gate",
                type=click.Choice(["match", "relabel"]),
                default="match",
                show_default=True,
                help="Of a text found to express another emotion: drop it, or label it so.",
            ),
            click.option("--judge-model", help="Another model of the endpoint to check with."),
            _template("label", "--label-template"),
            click.option("--to", callback=_labels, metavar="A,B", help="Emotions to write."),
            click.option("--seed", type=int, default=0, show_default=True, help="Of the draw."),
        )
    ):
        function = option(function)
    return function


class _Open(NamedTuple):
    """What a step of this file works with."""

    job: Job
    having: Callable[..., Answerer]


@contextmanager
def _opened(given: Mapping[str, Any], usual: float) -> Iterator[_Open]:
    """Check the output, open who answers, and hold the folder of answers."""
    from emowatch.workshop.building.asking import Purse  # scipy: a second
    from emowatch.workshop.building.jobs import check_job, open_job, work_beside

    work = given["work"] or work_beside(given["out"])
    check_job(given["out"], work, overwrite=given["overwrite"])
    purse = Purse(**{key: given[key] for key in PRICES})
    with open_answerer(usual=usual, **given) as having:
        with stoppable(), open_job(work, purse) as job:
            yield _Open(job, having)


def _finish(built: Built, opened: _Open, out: Path, as_json: bool, next_: str) -> None:
    """Write what was built, print the figures, and say what is wrong if anything is."""
    from emowatch.workshop.building.jobs import write_built
    from emowatch.workshop.building.telling import render_built, spending

    aside = write_built(out, built)
    if as_json:
        told = {"out": str(out), **built.as_object(), "spent": spending(opened.job.purse)}
        click.echo(json.dumps(told))
    else:
        click.echo(clean(render_built(str(out), built, opened.job.purse)))
    if built.dropped:
        click.echo(clean_line(f"what was left out, and why, is in {aside}"), err=True)
    built.check_complete()
    click.echo(clean_line(f"Next: {next_}"), err=True)


def _load(kind: Kind, path: Path | None) -> PromptTemplate:
    from emowatch.workshop.building.prompting import PromptTemplate

    return PromptTemplate.load(kind, path)


@click.command()
@click.argument("data")
@_job_options(0.0)
@_template("label")
@click.option("--text-column", help="Column of the text, where it is not found.")
@click.option("--split", help="Of a hub data set; default: train.")
def label(data: str, template: Path | None, **given: Any) -> None:
    """Label the texts of DATA with a model, step 1 of Zhang & Zhong.

    DATA is a CSV, TSV, JSONL or Parquet file, a .txt file with one text a line (also .gz), or a
    hub data set. Labels that it has are not read.
    """
    from emowatch.workshop.building.labelling import label_texts
    from emowatch.workshop.building.texts import read_texts

    prompt = _load("label", template)
    reading = {key: given[key] for key in ("text_column", "encoding", "split", "limit")}
    with _opened(given, 0.0) as opened:
        texts = read_texts(data, **reading)
        for reason, n in texts.aside.items():
            click.echo(f"{n} rows put aside: {reason}", err=True)
        answerer = opened.having()
        stage = opened.job.labeller(prompt, given["labels"], answerer)
        built = label_texts(texts, stage, given["labels"], answerer.model, progress)
        _finish(
            built,
            opened,
            given["out"],
            given["as_json"],
            f"emowatch data rewrite {given['out']} --out FILE",
        )


@click.command()
@click.argument("data")
@_job_options(0.7)
@_template("rewrite")
@_gate_options
@click.option("--from", "origin", default=NEUTRAL, show_default=True, help="Label to rewrite.")
def rewrite(data: str, template: Path | None, origin: str, **given: Any) -> None:
    """Rewrite the neutral texts of DATA to express an emotion, and check that they do.

    DATA is a labelled file, as `emowatch data label` writes it or as `emowatch train` reads it.
    """
    from emowatch.workshop.building.gate import Gate
    from emowatch.workshop.building.rewriting import read_rewrite, rewrite_rows

    prompt, check = _load("rewrite", template), _load("label", given["label_template"])
    targets = given["to"] or tuple(name for name in given["labels"] if name != origin)
    _check_targets(targets, given["labels"])
    with _opened(given, 0.7) as opened:
        rows = _rows(data, given)
        writer = opened.having()
        judge = opened.having(model=given["judge_model"] or writer.model, temperature=0.0)
        built = rewrite_rows(
            rows,
            targets,
            origin,
            opened.job.stage(prompt, read_rewrite, writer),
            Gate(
                opened.job.labeller(check, given["labels"], judge), given["labels"], given["gate"]
            ),
            model=writer.model,
            seed=given["seed"],
            limit=given["limit"],
            report=progress,
        )
        _finish(
            built,
            opened,
            given["out"],
            given["as_json"],
            f"emowatch data synthesize {data} --out FILE",
        )


@click.command()
@click.argument("data")
@_job_options(1.0)
@_template("synthesize")
@_gate_options
@click.option(
    "--per-label", type=click.IntRange(1), default=100, show_default=True, help="Texts to write."
)
@click.option(
    "--shots", type=click.IntRange(1, 50), default=5, show_default=True, help="Examples shown."
)
def synthesize(data: str, template: Path | None, per_label: int, shots: int, **given: Any) -> None:
    """Write new texts after examples of DATA for each emotion, and check what they express.

    DATA is a labelled file, as `emowatch data label` writes it or as `emowatch train` reads it.
    """
    from emowatch.workshop.building.gate import Gate
    from emowatch.workshop.building.synthesis import plan, read_generation
    from emowatch.workshop.building.synthesis import synthesize as write_texts

    prompt, check = _load("synthesize", template), _load("label", given["label_template"])
    targets = given["to"] or tuple(name for name in given["labels"] if name != NEUTRAL)
    _check_targets(targets, given["labels"])
    with _opened(given, 1.0) as opened:
        rows = _rows(data, given)
        wishes = plan(rows, targets, per_label=per_label, shots=shots, seed=given["seed"])
        writer = opened.having()
        judge = opened.having(model=given["judge_model"] or writer.model, temperature=0.0)
        built = write_texts(
            wishes,
            opened.job.stage(prompt, read_generation, writer),
            Gate(
                opened.job.labeller(check, given["labels"], judge), given["labels"], given["gate"]
            ),
            model=writer.model,
            report=progress,
        )
        _finish(
            built,
            opened,
            given["out"],
            given["as_json"],
            f"emowatch data filter {data} {given['out']} --out FILE",
        )


@click.command()
@folder_option()
@click.option("--overwrite", is_flag=True, help="Replace templates that are there.")
def templates(out: Path, overwrite: bool) -> None:
    """Copy the three prompts into a folder, to be edited and named with --template."""
    from emowatch.workshop.building.prompting import KINDS, PLACEHOLDERS, write_templates

    for kind, path in zip(KINDS, write_templates(out, overwrite=overwrite), strict=True):
        placed = ", ".join(f"{{{{ {name} }}}}" for name in PLACEHOLDERS[kind])
        click.echo(clean_line(f"{path}: may place {placed}"))


def _rows(data: str, given: Mapping[str, Any]) -> Any:
    from emowatch.workshop.building.rows import read_rows

    found = read_rows(data, encoding=given["encoding"])
    for reason, n in found.aside.items():
        click.echo(f"{n} rows put aside: {reason}", err=True)
    return found.rows


def _check_targets(targets: tuple[str, ...], labels: tuple[str, ...]) -> None:
    unknown = [name for name in targets if name not in labels]
    if unknown or not targets:
        named = clean_line(unknown[0]) if unknown else "nothing"
        raise UsageError(
            f"Could not write texts for {named!r}: the labels are {', '.join(labels)}. Name some "
            "of them with --to, or others with --labels."
        )
