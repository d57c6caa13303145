"""``emowatch run PROMPT``: the headless twin of chat."""

from __future__ import annotations

import json
from typing import Any

import click

from emowatch.cli.certifying import certify, plain
from emowatch.cli.exits import Exit
from emowatch.cli.options import (
    PLACING,
    check_placing,
    chosen_plugins,
    chosen_probes,
    messages_of,
    model_options,
    open_model,
    probe_options,
    sampling,
)
from emowatch.errors import UsageError
from emowatch.text import clean


@click.command()
@click.argument("prompt")
@model_options
@probe_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--fail-on-alarm", is_flag=True, help="Exit with 4 if an alarm is raised.")
def command(prompt: str, as_json: bool, fail_on_alarm: bool, **given: Any) -> None:
    """Answer one prompt without a screen.

    Prints the reply with its scores; `--json` prints one object for each token, then one for
    the turn. PROMPT may be - for standard input.
    """
    if prompt == "-":
        with click.open_file("-", encoding="utf-8", errors="replace") as lines:
            prompt = lines.read()
        if not prompt.strip():
            raise UsageError(
                "There was no prompt on stdin: pipe a text in, or write it in place of the -."
            )
    probes = chosen_probes(given.pop("probes"), given["model"])
    choosing = sampling(given["sample"], given["temperature"])
    plugins = chosen_plugins(given["plugins"], given["record"], given["content"], given["log"])
    from emowatch.bank import load_bank

    placing = {key: given.pop(key) for key in PLACING}
    check_placing(**placing)
    banks = [load_bank(name) for name in probes]
    loaded = open_model(**placing)
    from emowatch.cli.printing import (
        print_alarms,
        print_plain,
        print_queues,
        print_steering,
        token_object,
        turn_object,
    )
    from emowatch.streaming import stream

    certificate = certify(loaded, plugins, wanted=given["doctor"], strict=given["strict"])
    running = stream(
        loaded.model,
        loaded.tokenizer,
        messages_of(prompt, given["system"]),
        probes=banks,
        plugins=plugins,
        max_new_tokens=given["max_new_tokens"],
        model_name=loaded.name,
        certificate=plain(certificate),
        strict=given["strict"],
        blocks=loaded.blocks,
        seed=given["seed"],
        **choosing,
    )
    with running:
        for token in running:
            if as_json:
                click.echo(json.dumps(token_object(token)))
            else:
                click.echo(clean(token.text), nl=False)
    turn = running.turn
    assert turn is not None
    if as_json:
        click.echo(json.dumps(turn_object(turn, running.trace)))
    else:
        click.echo()
        print_plain(turn, running.trace)
    print_alarms(running.alarms)
    print_steering(running.trace.steerings)
    print_queues(running.flush_plugins())
    if running.plugin_failures:
        raise click.exceptions.Exit(Exit.FAILED)
    if fail_on_alarm and running.alarms:
        raise click.exceptions.Exit(Exit.ALARM)
