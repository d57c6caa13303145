"""The doctor's certificate, which a session that is recorded carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from emowatch.errors import ModelError
from emowatch.plugins import PluginSpec, parse_plugin
from emowatch.text import clean_line

if TYPE_CHECKING:
    from emowatch.doctor import Certificate
    from emowatch.model.loading import LoadedModel

RECORDER = "jsonl-log"
"""The plugin that writes traces."""


def examine_loaded(loaded: LoadedModel, *, compiled: bool = False) -> Certificate:
    """Examine a model as it was opened."""
    from emowatch.doctor import examine  # after the libraries are quiet

    return examine(
        loaded.model,
        loaded.tokenizer,
        blocks=loaded.blocks,
        name=loaded.name,
        compiled=compiled,
    )


def certify(
    loaded: LoadedModel,
    plugins: Sequence[PluginSpec],
    *,
    wanted: bool | None,
    strict: bool,
) -> Certificate | None:
    """Examine the model before a session that is recorded, and say on stderr what was found.

    Args:
        loaded: the model.
        plugins: those of the session; one of them may write a trace.
        wanted: whether to examine at all; `None` where a trace is written.
        strict: refuse a model that fails a check.

    Raises:
        ModelError: if a check failed under `strict`.
    """
    if wanted is None:
        wanted = any(_name(plugin) == RECORDER for plugin in plugins)
    if not wanted:
        return None
    shown = clean_line(loaded.name)
    click.echo(
        f"examining {shown} (--no-doctor leaves it out) \N{HORIZONTAL ELLIPSIS} ",
        err=True,
        nl=False,
    )
    certificate = examine_loaded(loaded)
    failed, total = certificate.failed, len(certificate.checks)
    click.echo(certificate.counted, err=True)
    if failed and strict:
        names = ", ".join(check.name for check in failed)
        raise ModelError(
            f"Could not use {shown!r} under --strict: it failed {len(failed)} of the doctor's "
            f"{total} checks ({clean_line(names)}). `emowatch doctor` says what each means; "
            "without --strict the run goes on."
        )
    for line in failures(certificate):
        click.echo(f"emowatch: {line}", err=True)
    return certificate


def failures(certificate: Certificate | None) -> list[str]:
    """Write a line for each check that failed: what was found, and what that means."""
    if certificate is None:
        return []
    return [
        clean_line(f"The check '{check.name}' failed: {check.found}. {check.meaning}")
        for check in certificate.failed
    ]


def plain(certificate: Certificate | None) -> dict[str, Any] | None:
    """Give a certificate as a session keeps it."""
    return None if certificate is None else certificate.to_json()


def _name(plugin: PluginSpec) -> str:
    if isinstance(plugin, str):
        return parse_plugin(plugin)[0]
    return str(plugin[0]) if isinstance(plugin, tuple) else ""
