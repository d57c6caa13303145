"""``emowatch study NAME DATA``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.bars import stoppable
from emowatch.cli.exits import Exit
from emowatch.cli.notebook import command as notebook
from emowatch.cli.options import folder_option
from emowatch.cli.study_asking import (
    asking_options,
    base_option,
    classification,
    expression,
    judging_options,
    opener_of,
    think_option,
)
from emowatch.cli.studying import open_setting, overwrite_option, run_study, study_options
from emowatch.text import clean, clean_line

if TYPE_CHECKING:
    from emowatch.studies.plan import Outcome


@click.group()
def command() -> None:
    """Repeat what the papers measured, with the controls they lack."""


for one in (classification, expression):
    command.add_command(one)
command.add_command(notebook, "notebook")


@command.command()
@study_options
@folder_option(default="studies/layers", show_default=True, help="Folder of the report.")
@overwrite_option
@click.option("--control/--no-control", default=True, help="Fit a control task. Default: yes.")
def layers(control: bool, **given: Any) -> None:
    """Accuracy by depth, beside a control task (Table 3, Figure 5)."""
    from emowatch.studies.layers import study_layers

    run_study(lambda setting: study_layers(setting, control=control), **given)


@command.command()
@study_options
@folder_option(default="studies/geometry", show_default=True, help="Folder of the report.")
@overwrite_option
def geometry(**given: Any) -> None:
    """How the emotions lie to each other in the scores (Figures 1 and 4)."""
    from emowatch.studies.geometry import study_geometry

    run_study(study_geometry, **given)


@command.command()
@study_options
@folder_option(default="studies/persistence", show_default=True, help="Folder of the report.")
@overwrite_option
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
    help="Refuse replies that all end before this offset. Default: as far as they go.",
)
@click.option(
    "--bandwidth",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Of the smoothing, in tokens.",
)
@think_option
def persistence(
    max_new_tokens: int,
    states_per_reply: int,
    offsets: int | None,
    bandwidth: float,
    thinks: bool,
    **given: Any,
) -> None:
    """How long the user's emotion stays in the states of a reply (Figure 7)."""
    from emowatch.studies.persistence import PersistenceOptions, study_persistence

    chosen = PersistenceOptions(
        max_new_tokens=max_new_tokens,
        states_per_reply=states_per_reply,
        offsets=offsets,
        bandwidth=bandwidth,
        thinks=thinks,
    )
    run_study(lambda setting: study_persistence(setting, chosen), **given)


@command.command(name="all")
@study_options
@asking_options
@judging_options
@base_option
@folder_option(default="studies/all", show_default=True, help="Folder of all reports.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(2, 512),
    default=512,
    show_default=True,
    help="Longest reply.",
)
@click.option("--control/--no-control", default=True, help="Fit a control task. Default: yes.")
@click.option(
    "--envent",
    metavar="FILE",
    help="crowd-enVENT (enVent_gen_Data.csv), for the notebook study; without it that is left out.",
)
@click.option("--only", multiple=True, metavar="STUDY", help="Run these alone; repeatable.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it takes.")
def all_studies(
    out: Path,
    as_json: bool,
    prompt: Path | None,
    thinks: bool,
    answer_tokens: int,
    judge: str,
    base_url: str | None,
    api_key_env: str,
    concurrency: int,
    base: str | None,
    max_new_tokens: int,
    control: bool,
    envent: str | None,
    only: tuple[str, ...],
    dry_run: bool,
    **given: Any,
) -> None:
    """Run all studies in order; what is done already is not done again."""
    from emowatch.studies.estimating import measure_speed
    from emowatch.studies.folder import PAGE
    from emowatch.studies.judges import JudgeSpec
    from emowatch.studies.notebook.accounts import read_accounts
    from emowatch.studies.plan import claim, expected, remaining, run_plan
    from emowatch.studies.steps import PlanOptions, steps_for
    from emowatch.workshop.building.prompting import PromptTemplate

    accounts = None if envent is None else read_accounts(envent)
    options = PlanOptions(
        max_new_tokens=max_new_tokens,
        accounts=accounts,
        only=only,
        question=PromptTemplate.load("emotion", prompt),
        answer_tokens=answer_tokens,
        thinks=thinks,
        base=opener_of(base, given),
        judge=JudgeSpec.parse(
            judge,
            most=answer_tokens,
            base_url=base_url,
            api_key_env=api_key_env,
            concurrency=concurrency,
        ),
        control=control,
    )
    steps = steps_for(options)
    setting = open_setting(out, **given)
    told = {
        "max_new_tokens": max_new_tokens,
        "envent": None if accounts is None else accounts.sha256,
        "prompt": options.question.name,
        "thinks": thinks,
        "answer_tokens": answer_tokens,
        "judge": judge,
        "base": base,
        "control": control,
    }
    claim(setting, steps, out, told, mark=not dry_run)
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
        every = [step.name for step in steps_for(replace(options, only=()))]
        for outcome in run_plan(setting, steps, out, every):
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
