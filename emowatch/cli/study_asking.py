"""``emowatch study classification | expression DATA``, which ask language models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.answering import key_option
from emowatch.cli.options import Function, folder_option, open_model
from emowatch.cli.studying import overwrite_option, run_study, study_options

if TYPE_CHECKING:
    from emowatch.studies.conditions import Opener


def think_option(function: Function) -> Function:
    """Add ``--think``."""
    return click.option(
        "--think/--no-think",
        "thinks",
        default=False,
        help="Let a model that can think before it answers do so. Default: no.",
    )(function)


def asking_options(function: Function) -> Function:
    """Add how a language model is asked."""
    for option in reversed(
        (
            click.option(
                "--prompt",
                type=click.Path(path_type=Path, dir_okay=False, exists=True),
                metavar="FILE",
                help="Question to a model, as a Jinja template that places {{ text }}.",
            ),
            think_option,
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


def judging_options(function: Function) -> Function:
    """Add who judges replies."""
    for option in reversed(
        (
            click.option(
                "--judge",
                default="classifier",
                show_default=True,
                metavar="WHO",
                help="Who names the emotion of a reply: classifier, bank:NAME, model:ID or "
                "endpoint:MODEL.",
            ),
            click.option(
                "--base-url", metavar="URL", help="Of an endpoint, as http://127.0.0.1:8000/v1."
            ),
            key_option,
            click.option(
                "--concurrency",
                type=click.IntRange(1, 256),
                default=8,
                show_default=True,
                help="Requests to the endpoint at a time.",
            ),
        )
    ):
        function = option(function)
    return function


def base_option(function: Function) -> Function:
    """Add ``--base``."""
    return click.option("--base", metavar="ID|DIR", help="The model before instruction tuning.")(
        function
    )


def opener_of(base: str | None, given: Mapping[str, Any]) -> Opener | None:
    """Check that a base model is there; give what opens it when it is needed."""
    from emowatch.model.loading import check_model

    if base is None:
        return None
    check_model(base, given["dtype"], given["device"])
    trusted = given["trust_remote_code"]
    return partial(open_model, base, None, given["dtype"], given["device"], trusted, None)


@click.command()
@study_options
@asking_options
@folder_option(default="studies/classification", show_default=True, help="Folder of the report.")
@overwrite_option
@base_option
def classification(
    base: str | None, prompt: Path | None, answer_tokens: int, thinks: bool, **given: Any
) -> None:
    """Zero-shot answers beside probes of raw and templated text (Table 2)."""
    from emowatch.studies.classification import study_classification
    from emowatch.workshop.building.prompting import PromptTemplate

    question = PromptTemplate.load("emotion", prompt)
    opener = opener_of(base, given)
    run_study(
        lambda setting: study_classification(
            setting, question, base=opener, most=answer_tokens, thinks=thinks
        ),
        **given,
    )


@click.command()
@study_options
@asking_options
@folder_option(default="studies/expression", show_default=True, help="Folder of the report.")
@overwrite_option
@judging_options
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
    run_study(
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
