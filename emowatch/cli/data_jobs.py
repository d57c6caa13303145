"""What the steps of ``emowatch data`` that ask a model have in common: options, opening, ending."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from emowatch.cli.answering import PRICES, asking_options, open_answerer
from emowatch.cli.bars import stoppable
from emowatch.cli.options import Function
from emowatch.errors import UsageError
from emowatch.labels import EKMAN7, check_labels
from emowatch.text import clean, clean_line
from emowatch.tui.summary import counted

if TYPE_CHECKING:
    from emowatch.workshop.building.answering import Answerer
    from emowatch.workshop.building.built import Built
    from emowatch.workshop.building.gate import Gate
    from emowatch.workshop.building.jobs import Job
    from emowatch.workshop.building.prompting import Kind, PromptTemplate
    from emowatch.workshop.building.rows import CorpusRow, RowFile

FILE = click.Path(path_type=Path, dir_okay=False)


def _labels(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        return check_labels([name.strip() for name in value.split(",")])
    except ValueError as error:
        raise UsageError(f"Could not use {option.opts[0]}: {error}.") from error


def template_option(kind: str, flag: str = "--template") -> Callable[[Function], Function]:
    """Add what names a file with the prompt."""
    return click.option(
        flag, type=FILE, metavar="FILE", help=f"Prompt to {kind}; default: the built-in one."
    )


def job_options(temperature: float) -> Callable[[Function], Function]:
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
        click.option("--encoding", default="utf-8", show_default=True),
        click.option("--json", "as_json", is_flag=True, help="Figures as one JSON object."),
    )

    def add(function: Function) -> Function:
        function = asking_options(temperature)(function)
        for option in reversed(options):
            function = option(function)
        return function

    return add


def limit_option(function: Function) -> Function:
    """Add ``--limit``."""
    return click.option(
        "--limit", type=click.IntRange(1), help="At most so many texts; a sample of all."
    )(function)


def gate_options(function: Function) -> Function:
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
            template_option("label", "--label-template"),
            click.option("--to", callback=_labels, metavar="A,B", help="Emotions to write."),
            click.option(
                "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw."
            ),
        )
    ):
        function = option(function)
    return function


class OpenJob(NamedTuple):
    """What a step works with: its folder of answers, and what makes answerers."""

    job: Job
    having: Callable[..., Answerer]


def check_out(given: Mapping[str, Any], step: str) -> None:
    """Refuse an output that cannot be written, before anything is read."""
    from emowatch.workshop.building.jobs import check_job

    check_job(given["out"], _work(given), step, overwrite=given["overwrite"])


@contextmanager
def opened_job(given: Mapping[str, Any], source: str, usual: float) -> Iterator[OpenJob]:
    """Open who answers, and hold the folder of answers about the texts of `source`."""
    from emowatch.workshop.building.asking import Purse  # scipy: a second
    from emowatch.workshop.building.jobs import open_job

    purse = Purse(**{key: given[key] for key in PRICES})
    with open_answerer(usual=usual, **given) as having:
        with stoppable(), open_job(_work(given), Path(source).name, purse) as job:
            yield OpenJob(job, having)


def _work(given: Mapping[str, Any]) -> Path:
    from emowatch.workshop.building.jobs import work_beside

    work: Path | None = given["work"]
    return work or work_beside(given["out"])


def make_gate(
    opened: OpenJob, template: PromptTemplate, writer: Answerer, given: Mapping[str, Any]
) -> Gate:
    """Make the gate, whose judge is the writer's model unless another is named."""
    from emowatch.workshop.building.gate import Gate

    judge = opened.having(model=given["judge_model"] or writer.model, temperature=0.0)
    labels = given["labels"]
    stage = opened.job.labeller("check", template, labels, judge)
    return Gate(stage, labels, given["gate"], judge.model)


def finish(built: Built, opened: OpenJob, given: Mapping[str, Any], then: str) -> None:
    """Write what was built, print the figures, and say what is wrong if anything is."""
    from emowatch.workshop.building.jobs import write_built
    from emowatch.workshop.building.telling import render_built, spending

    out: Path = given["out"]
    aside = write_built(out, built)
    if given["as_json"]:
        told = {"out": str(out), **built.as_object(), "spent": spending(opened.job.purse)}
        click.echo(json.dumps(told))
    else:
        click.echo(clean(render_built(str(out), built, opened.job.purse)))
    if built.dropped:
        click.echo(clean_line(f"what was left out, and why, is in {aside}"), err=True)
    built.check_complete()
    click.echo(clean_line(f"Next: emowatch data {then} --out FILE"), err=True)


def load_template(kind: Kind, path: Path | None) -> PromptTemplate:
    """Read a template; `None` stands for the built-in one."""
    from emowatch.workshop.building.prompting import PromptTemplate

    return PromptTemplate.load(kind, path)


def read_labelled(data: str, **reading: Any) -> RowFile:
    """Read a labelled file, and say on stderr how many of its rows cannot be used."""
    from emowatch.workshop.building.rows import read_rows

    found = read_rows(data, **reading)
    shown = clean_line(data)
    if not found.rows:
        click.echo(f"{shown}: no rows", err=True)
    for reason, n in found.aside.items():
        click.echo(f"{shown}: {counted(n, 'row')} put aside: {reason}", err=True)
    if found.encoding_hint:
        click.echo(f"{shown}: {clean_line(found.encoding_hint)}", err=True)
    return found


class ToWrite(NamedTuple):
    """What texts are written from, and for."""

    rows: Sequence[CorpusRow]
    targets: Sequence[str]
    prompt: PromptTemplate
    check: PromptTemplate


def read_to_write(
    data: str, kind: Kind, template: Path | None, given: Mapping[str, Any], *, but: str
) -> ToWrite:
    """Read what a step that writes texts needs, and refuse what it cannot do before it asks.

    Args:
        data: the labelled file.
        kind: the step.
        template: its prompt.
        given: its options.
        but: the label that texts are not written for, unless it is named.
    """
    check_out(given, kind)
    prompt, check = load_template(kind, template), load_template("label", given["label_template"])
    targets = given["to"] or tuple(name for name in given["labels"] if name != but)
    check_targets(targets, given["labels"])
    rows = read_labelled(data, encoding=given["encoding"]).rows
    return ToWrite(rows, targets, prompt, check)


def check_targets(targets: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse emotions that the gate could never find."""
    unknown = [name for name in targets if name not in labels]
    if unknown or not targets:
        named = clean_line(unknown[0]) if unknown else "nothing"
        raise UsageError(
            f"Could not write texts for {named!r}: the labels are {', '.join(labels)}. Name some "
            "of them with --to, or others with --labels."
        )
