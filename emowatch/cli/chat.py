"""``emowatch chat``."""

from __future__ import annotations

import io
import sys
from contextlib import closing
from typing import Any

import click

from emowatch.cli.certifying import certify, failures, plain
from emowatch.cli.exits import Exit
from emowatch.cli.options import (
    PLACING,
    check_placing,
    chosen_plugins,
    chosen_probes,
    model_options,
    open_model,
    probe_options,
    sampling,
)
from emowatch.plugins import parse_plugin

ALARM = "threshold-alarm"


@click.command()
@model_options
@probe_options
@click.option(
    "--alarm/--no-alarm",
    default=True,
    help=f"Raise alarms as {ALARM} does by default, unless it is named with --plugin.",
)
def command(alarm: bool, **given: Any) -> None:
    """Talk with a model and watch its scores live.

    Without a terminal each line of standard input is answered in plain text with its scores.
    """
    probes = chosen_probes(given.pop("probes"), given["model"])
    choosing = sampling(given["sample"], given["temperature"])
    named = given["plugins"]
    if alarm and not any(parse_plugin(spec)[0] == ALARM for spec in named):
        named = (*named, ALARM)
    plugins = chosen_plugins(named, given["record"], given["content"], given["log"])
    from emowatch.bank import load_bank
    from emowatch.cli.printing import print_queues
    from emowatch.tui.source import ModelSource

    placing = {key: given.pop(key) for key in PLACING}
    check_placing(**placing)
    banks = [load_bank(name) for name in probes]
    loaded = open_model(**placing)
    certificate = certify(loaded, plugins, wanted=given["doctor"], strict=given["strict"])
    source = ModelSource(
        loaded,
        banks,
        plugins=plugins,
        certificate=plain(certificate),
        system=given["system"],
        strict=given["strict"],
        seed=given["seed"],
        max_new_tokens=given["max_new_tokens"],
        **choosing,
    )
    with closing(source):
        # Textual draws on stderr, so that must be a terminal as well.
        if all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
            from emowatch.tui import run_chat

            code = run_chat(source, notes=failures(certificate))
        else:
            from emowatch.cli.plain import answer_plain

            if sys.stdin.isatty():
                sys.stderr.write("emowatch: no screen here; each line is a message, Ctrl+D ends\n")
            elif isinstance(sys.stdin, io.TextIOWrapper):  # whatever the locale: a line that is
                sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # no text is told
            code = answer_plain(source, sys.stdin, sys.stdout)
    print_queues(source.queues)
    if source.plugin_failures:
        code = code or Exit.FAILED
    if code:
        raise click.exceptions.Exit(code)
