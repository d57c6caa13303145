"""Options that say which model answers prompts, how fast, and what it may cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.options import PLACING, Function, check_placing, model_options, open_model
from emowatch.errors import UsageError
from emowatch.text import clean_line

if TYPE_CHECKING:
    from emowatch.workshop.building.answering import Answerer

ASKING = (
    "base_url",
    "api_key_env",
    "max_new_tokens",
    "temperature",
    "body",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout_s",
    "attempts",
)
"""The arguments of `open_answerer`, beside those of `open_model`."""
PRICES = ("price_in", "price_out", "max_cost")
_OF_LOCAL = {"revision": None, "blocks": None, "trust_remote_code": False}
_OF_ENDPOINT = {
    "temperature": "--temperature",
    "body": "--param",
    "requests_per_minute": "--requests-per-minute",
    "tokens_per_minute": "--tokens-per-minute",
    "judge_model": "--judge-model",
}
_MORE_THAN_0 = click.FloatRange(0, min_open=True)


def key_option(function: Function) -> Function:
    """Add ``--api-key-env``."""
    return click.option(
        "--api-key-env",
        metavar="NAME",
        default="OPENAI_API_KEY",
        show_default=True,
        help="Variable that holds the endpoint's key; '' sends none.",
    )(function)


def asking_options(temperature: float) -> Callable[[Function], Function]:
    """Add what says who answers; `temperature` is the endpoint's unless it is named."""
    options = (
        click.option(
            "--base-url",
            metavar="URL",
            help="Endpoint that speaks OpenAI's chat completions, such as "
            "http://127.0.0.1:8000/v1; --model is then its name for a model. Default: a model on "
            "this machine.",
        ),
        key_option,
        click.option(
            "--max-new-tokens",
            type=click.IntRange(1),
            default=512,
            show_default=True,
            help="Of one answer.",
        ),
        click.option(
            "--temperature",
            type=click.FloatRange(0),
            help=f"Of an endpoint's answers; default: {temperature:g}. Models here are greedy.",
        ),
        click.option(
            "--param",
            "body",
            multiple=True,
            metavar="NAME=JSON",
            help="More of the request's body, such as reasoning_effort='\"low\"'; null takes a "
            "field out. Repeatable.",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(1, 256),
            default=8,
            show_default=True,
            help="Requests under way at a time; of a model here, rows of a batch.",
        ),
        click.option("--requests-per-minute", type=_MORE_THAN_0, help="At most so many."),
        click.option("--tokens-per-minute", type=_MORE_THAN_0, help="At most so many."),
        click.option(
            "--timeout",
            "timeout_s",
            type=_MORE_THAN_0,
            default=120.0,
            show_default=True,
            help="Seconds without a byte until a request is tried again.",
        ),
        click.option(
            "--attempts",
            type=click.IntRange(1, 20),
            default=6,
            show_default=True,
            help="For one prompt.",
        ),
        click.option("--price-in", type=click.FloatRange(0), help="Of a million prompt tokens."),
        click.option("--price-out", type=click.FloatRange(0), help="Of a million answer tokens."),
        click.option("--max-cost", type=_MORE_THAN_0, help="Stop once so much is spent."),
    )

    def add(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return model_options(function)

    return add


@contextmanager
def open_answerer(*, usual: float, **given: Any) -> Iterator[Callable[..., Answerer]]:
    """Open the endpoint or the model, and give what makes answerers of it.

    `usual` is the temperature where none is named. The maker takes ``model`` and ``temperature``
    for one that differs in them: it shares connections and rate limits.

    Raises:
        UsageError: for options that cannot be used, or not together.
    """
    placing = {key: given[key] for key in PLACING}
    asked = {key: given[key] for key in ASKING}
    if asked["base_url"] is None:
        yield _open_local(placing, given)
        return
    if placing["model"] is None:
        raise UsageError("Could not ask the endpoint: name its model with --model.")
    if wrong := [key for key, usual in _OF_LOCAL.items() if placing[key] != usual]:
        raise UsageError(
            f"Could not use --{wrong[0].replace('_', '-')} with --base-url: it is for a model on "
            "this machine."
        )
    from emowatch.workshop.building.endpoint import Endpoint  # httpx
    from emowatch.workshop.building.options import EndpointOptions

    chosen = asked.pop("temperature")
    options = EndpointOptions(
        model=placing["model"],
        temperature=usual if chosen is None else chosen,
        max_tokens=asked.pop("max_new_tokens"),
        body=_body(asked.pop("body")),
        **asked,
    )
    with Endpoint(options) as endpoint:
        yield endpoint.having


def _open_local(placing: dict[str, Any], given: dict[str, Any]) -> Callable[..., Answerer]:
    for key, name in _OF_ENDPOINT.items():
        if given.get(key):
            raise UsageError(
                f"Could not use {name} without --base-url: it is for an endpoint. One model is "
                "open on this machine, and answers greedily, as fast as it can."
            )
    check_placing(**placing)
    from emowatch.workshop.building.local import LocalModel  # torch: seconds

    answerer = LocalModel(
        open_model(**placing), max_tokens=given["max_new_tokens"], batch_rows=given["concurrency"]
    )
    return lambda **changes: answerer  # whose model and settings there is one of


def _body(given: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for text in given:
        name, sign, value = text.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            sign = ""
        if not sign or not name or name in ("model", "messages"):
            raise UsageError(
                f"Could not read --param {clean_line(text, 80)!r}: a name and JSON are needed, "
                "as in top_p=0.9 or reasoning_effort='\"low\"', and neither model nor messages."
            )
    return found
