"""``emowatch study NAME DATA``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.bars import progress, stoppable
from emowatch.cli.exits import Exit
from emowatch.cli.notebook import command as notebook
from emowatch.cli.options import (
    PLACING,
    READING,
    Function,
    check_placing,
    data_options,
    folder_option,
    model_options,
    open_model,
    tell_left_out,
)
from emowatch.text import clean, clean_line

if TYPE_CHECKING:
    from emowatch.studies.findings import Findings
    from emowatch.studies.plan import Outcome
    from emowatch.studies.setting import Setting


@click.group()
def command() -> None:
    """Repeat what the papers measured, with the controls they lack."""


command.add_command(notebook, "notebook")


def _study_options(function: Function) -> Function:
    """Add what every study takes."""
    for option in reversed(
        (
            click.argument("data"),
            click.option("--test", help="Texts to measure on; default: a tenth of DATA held out."),
            model_options,
            data_options,
            click.option("--layers", default="all", show_default=True, help="all, 0,9 or 25%,50%."),
            click.option(
                "--head", type=click.Choice(["linear", "mlp"]), default="mlp", show_default=True
            ),
            click.option(
                "--template/--no-template",
                default=True,
                help="Put texts through the chat template. Default: yes.",
            ),
            click.option(
                "--batch-tokens",
                type=click.IntRange(16),
                default=1024,
                show_default=True,
                help="Tokens in a batch.",
            ),
            click.option("--seed", type=int, default=0, show_default=True),
            click.option(
                "--work",
                type=click.Path(path_type=Path),
                metavar="DIR",
                help="States, replies and banks, shared by studies. Default: work in --out.",
            ),
            click.option("--json", "as_json", is_flag=True, help="One JSON object."),
        )
    ):
        function = option(function)
    return function


@command.command()
@_study_options
@folder_option(default="studies/layers", show_default=True, help="Folder of the report.")
@click.option("--control/--no-control", default=True, help="Fit a control task. Default: yes.")
def layers(control: bool, **given: Any) -> None:
    """Accuracy by depth, beside a control task (Table 3, Figure 5)."""
    from emowatch.studies.layers import study_layers

    _run(lambda setting: study_layers(setting, control=control), **given)


@command.command()
@_study_options
@folder_option(default="studies/geometry", show_default=True, help="Folder of the report.")
def geometry(**given: Any) -> None:
    """How the emotions lie to each other in the scores (Figures 1 and 4)."""
    from emowatch.studies.geometry import study_geometry

    _run(study_geometry, **given)


def _asking_options(function: Function) -> Function:
    """Add how a language model is asked."""
    for option in reversed(
        (
            click.option(
                "--prompt",
                type=click.Path(path_type=Path, dir_okay=False, exists=True),
                metavar="FILE",
                help="Question to a model, as a Jinja template that places {{ text }}.",
            ),
            click.option(
                "--think/--no-think",
                "thinks",
                default=False,
                help="Let a model that can think before it answers do so. Default: no.",
            ),
            click.option(
                "--answer-tokens",
                type=click.IntRange(1),
                default=64,
                show_default=True,
                help="Longest answer to the question.",
            ),
        )
    ):
        function = option(function)
    return function


@command.command()
@_study_options
@_asking_options
@folder_option(default="studies/classification", show_default=True, help="Folder of the report.")
@click.option("--base", metavar="ID|DIR", help="The model before instruction tuning.")
def classification(
    base: str | None, prompt: Path | None, answer_tokens: int, thinks: bool, **given: Any
) -> None:
    """Zero-shot answers beside probes of raw and templated text (Table 2)."""
    from emowatch.model.loading import check_model
    from emowatch.studies.classification import study_classification
    from emowatch.workshop.building.prompting import PromptTemplate

    question = PromptTemplate.load("emotion", prompt)
    opener = None
    if base is not None:
        check_model(base, given["dtype"], given["device"])
        trusted = given["trust_remote_code"]
        opener = partial(open_model, base, None, given["dtype"], given["device"], trusted, None)
    _run(
        lambda setting: study_classification(
            setting, question, base=opener, most=answer_tokens, thinks=thinks
        ),
        **given,
    )


@command.command()
@_study_options
@_asking_options
@folder_option(default="studies/expression", show_default=True, help="Folder of the report.")
@click.option(
    "--judge",
    default="classifier",
    show_default=True,
    metavar="WHO",
    help="Who names the emotion of a reply: classifier, bank:NAME, model:ID or endpoint:MODEL.",
)
@click.option("--base-url", metavar="URL", help="Of an endpoint, as http://127.0.0.1:8000/v1.")
@click.option(
    "--api-key-env",
    metavar="NAME",
    default="OPENAI_API_KEY",
    show_default=True,
    help="Variable that holds the endpoint's key; '' sends none.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Requests to the endpoint at a time.",
)
@click.option(
    "--messages",
    type=click.IntRange(1),
    help="Answer at most so many test texts, as many of each label. Default: all.",
)
@click.option(
    "--max-new-tokens", type=click.IntRange(1), default=512, show_default=True, help="Of a reply."
)
@click.option("--sample/--greedy", default=True, help="How tokens are chosen. Default: sampled.")
def expression(
    judge: str,
    base_url: str | None,
    api_key_env: str,
    concurrency: int,
    prompt: Path | None,
    answer_tokens: int,
    messages: int | None,
    max_new_tokens: int,
    sample: bool,
    thinks: bool,
    **given: Any,
) -> None:
    """Whether replies show the emotion of their messages (Table 4)."""
    from emowatch.studies.expression import study_expression
    from emowatch.studies.judges import JudgeSpec
    from emowatch.workshop.building.prompting import PromptTemplate

    question = PromptTemplate.load("emotion", prompt)
    spec = JudgeSpec.parse(
        judge,
        most=answer_tokens,
        base_url=base_url,
        api_key_env=api_key_env,
        concurrency=concurrency,
    )
    _run(
        lambda setting: study_expression(
            setting,
            spec.open(setting, question),
            most=max_new_tokens,
            messages=messages,
            sample=sample,
            thinks=thinks,
        ),
        **given,
    )


@command.command()
@_study_options
@folder_option(default="studies/persistence", show_default=True, help="Folder of the report.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(2, 512),
    default=512,
    show_default=True,
    help="Longest reply.",
)
@click.option(
    "--states-per-reply",
    type=click.IntRange(2),
    default=8,
    show_default=True,
    help="Offsets of each training reply that are learned from.",
)
@click.option(
    "--offsets",
    type=click.IntRange(1),
    help="Offset that must be reached. Default: as far as replies go.",
)
@click.option(
    "--bandwidth",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Of the smoothing, in tokens.",
)
def persistence(
    max_new_tokens: int,
    states_per_reply: int,
    offsets: int | None,
    bandwidth: float,
    **given: Any,
) -> None:
    """How long the user's emotion stays in the states of a reply (Figure 7)."""
    from emowatch.studies.persistence import PersistenceOptions, study_persistence

    chosen = PersistenceOptions(
        max_new_tokens=max_new_tokens,
        states_per_reply=states_per_reply,
        offsets=offsets,
        bandwidth=bandwidth,
    )
    _run(lambda setting: study_persistence(setting, chosen), **given)


@command.command(name="all")
@_study_options
@folder_option(default="studies", show_default=True, help="Folder of all reports.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(2, 512),
    default=256,
    show_default=True,
    help="Longest reply.",
)
@click.option("--only", multiple=True, metavar="STUDY", help="Run these alone; repeatable.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it takes.")
def all_studies(
    out: Path,
    as_json: bool,
    max_new_tokens: int,
    only: tuple[str, ...],
    dry_run: bool,
    **given: Any,
) -> None:
    """Run all studies in order; what is done already is not done again."""
    from emowatch.studies.estimating import measure_speed
    from emowatch.studies.folder import PAGE
    from emowatch.studies.plan import claim, expected, remaining, run_plan
    from emowatch.studies.steps import PlanOptions, steps_for

    options = PlanOptions(max_new_tokens=max_new_tokens, only=only)
    steps = steps_for(options)
    setting = _open(out, **given)
    if not dry_run:
        claim(setting, steps, out, {"max_new_tokens": max_new_tokens})
    missing = remaining(steps, out)
    if missing:
        times = expected(setting, missing, measure_speed(setting))
        for name, seconds in times.items():
            click.echo(f"{name}: about {_minutes(seconds)}", err=True)
        click.echo(f"in all about {_minutes(sum(times.values()))}", err=True)
    if dry_run:
        return
    outcomes = []
    with stoppable():
        for outcome in run_plan(setting, steps, out):
            outcomes.append(outcome)
            if not as_json:
                click.echo(_told(outcome))
    if as_json:
        click.echo(json.dumps([asdict(outcome) for outcome in outcomes]))
    click.echo(f"wrote {clean(str(out / PAGE))}", err=True)
    if any(outcome.error for outcome in outcomes):
        raise click.exceptions.Exit(Exit.FAILED)


def _told(outcome: Outcome) -> str:
    if outcome.done_before:
        return f"{outcome.name}: done before"
    if outcome.error:
        return clean_line(f"{outcome.name}: {outcome.error}")
    return f"{outcome.name}: done in {_minutes(outcome.seconds)}"


def _minutes(seconds: float) -> str:
    """Write a time as it is spoken of."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _run(study: Callable[[Setting], Findings], *, out: Path, as_json: bool, **given: Any) -> None:
    """Open texts and model, run a study, write its folder and print what it found."""
    from emowatch.studies.folder import PAGE, write_findings
    from emowatch.studies.rendering import as_json as as_object
    from emowatch.studies.rendering import render_findings

    setting = _open(out, **given)
    with stoppable():
        findings = study(setting)
        write_findings(findings, out)
    click.echo(json.dumps(as_object(findings)) if as_json else clean(render_findings(findings)))
    click.echo(f"wrote {clean(str(out / PAGE))}", err=True)


def _open(out: Path, *, data: str, test: str | None, work: Path | None, **given: Any) -> Setting:
    """Check what can be checked, then read the texts, then load the model."""
    from emowatch.studies.setting import Setting, open_texts
    from emowatch.workshop.corpora import split_of
    from emowatch.workshop.figures import require_matplotlib
    from emowatch.workshop.outputs import check_output

    require_matplotlib()
    check_output(out)
    placing = {key: given.pop(key) for key in PLACING}
    check_placing(**placing)
    reading = {key: given.pop(key) for key in READING}
    reading["split"] = split_of(data, reading["split"])
    learned, held = open_texts(data, test, seed=given["seed"], **reading)
    counts = ", ".join(f"{label} {n}" for label, n in learned.counts().items())
    click.echo(clean_line(f"{len(learned)} texts to learn from: {counts}"), err=True)
    click.echo(f"{len(held)} texts to measure on, classes of equal size", err=True)
    tell_left_out(learned, reading["limit"])
    return Setting(
        loaded=open_model(**placing),
        train=learned,
        test=held,
        work=work or out / "work",
        report=progress,
        reading=reading if test is not None else {},
        **given,
    )
