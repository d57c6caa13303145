"""``emowatch doctor [MODEL]``."""

from __future__ import annotations

import json

import click

from emowatch.cli.certifying import examine_loaded
from emowatch.cli.exits import Exit
from emowatch.cli.options import open_model


@click.command()
@click.argument("model", required=False)
@click.option("--revision", help="Branch, tag or commit of the hub repository.")
@click.option("--dtype", default="auto", show_default=True, help="float32, bfloat16 …")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, mps …")
@click.option("--trust-remote-code", is_flag=True, help="Run code that the repository brings.")
@click.option("--blocks", help="Dotted path of the block list, where it is not found.")
@click.option("--strict", is_flag=True, help="Exit with 1 for any failure, also of rare uses.")
@click.option(
    "--compiled",
    is_flag=True,
    help="Also what needs a compiler: generate's compiled code, quantised caches (minutes).",
)
@click.option("--json", "as_json", is_flag=True, help="The certificate as one JSON object.")
def command(
    model: str | None,
    revision: str | None,
    dtype: str,
    device: str,
    trust_remote_code: bool,
    blocks: str | None,
    strict: bool,
    compiled: bool,
    as_json: bool,
) -> None:
    """Check that a model can be watched exactly.

    MODEL is a hub id or a folder; the embedded demo model where it is left out. The exit
    status is 1 if a check failed that every use of the model depends on; with --strict also for
    one that matters to some ways of decoding alone.
    """
    if model is not None and not model.strip():
        raise click.UsageError(
            f"Could not examine a model named {model!r}: that is no name. Name a folder or a hub "
            "id, or leave MODEL out for the demo model."
        )
    loaded = open_model(model, revision, dtype, device, trust_remote_code, blocks)
    from emowatch.doctor import render_table

    certificate = examine_loaded(loaded, compiled=compiled)
    if as_json:
        click.echo(json.dumps(certificate.to_json()))
    else:
        click.echo(render_table(certificate))
    if not certificate.passed or (strict and certificate.failed):
        raise click.exceptions.Exit(Exit.FAILED)
