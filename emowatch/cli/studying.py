"""What the commands of studies share: their options, and the way from texts to a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.bars import progress, stoppable
from emowatch.cli.options import (
    PLACING,
    READING,
    Function,
    check_placing,
    data_options,
    model_options,
    open_model,
    tell_left_out,
)
from emowatch.text import clean, clean_line
from emowatch.tui.summary import counted

if TYPE_CHECKING:
    from emowatch.studies.findings import Findings
    from emowatch.studies.setting import Setting


def study_options(function: Function) -> Function:
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
            click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
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


def overwrite_option(function: Function) -> Function:
    """Add ``--overwrite``."""
    return click.option(
        "--overwrite", is_flag=True, help="Replace a finished study of something else."
    )(function)


def run_study(
    study: Callable[[Setting], Findings],
    *,
    out: Path,
    as_json: bool,
    overwrite: bool,
    **given: Any,
) -> None:
    """Open texts and model, run a study, write its folder and print what it found."""
    from emowatch.studies.folder import PAGE, write_findings
    from emowatch.studies.plan import check_free, check_same
    from emowatch.studies.rendering import as_json as as_object
    from emowatch.studies.rendering import render_findings

    check_free(out)
    setting = open_setting(out, **given)
    check_same(out, setting.described, overwrite=overwrite)
    with stoppable():
        findings = study(setting)
        write_findings(findings, out)
    click.echo(json.dumps(as_object(findings)) if as_json else clean(render_findings(findings)))
    click.echo(f"wrote {clean(str(out / PAGE))}", err=True)


def open_setting(
    out: Path, *, data: str, test: str | None, work: Path | None, **given: Any
) -> Setting:
    """Check what can be checked, then read the texts, then load the model."""
    from emowatch.model.blocks import find_blocks, resolve_layers
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
    click.echo(
        clean_line(f"{len(held)} texts to measure on, classes of equal size: {held.source}"),
        err=True,
    )
    tell_left_out(learned, reading["limit"])
    if test is not None:
        for reason, n in held.quarantine_counts().items():
            click.echo(clean_line(f"{test}: {counted(n, 'row')} put aside: {reason}"), err=True)
        if held.encoding_hint:
            click.echo(clean_line(f"{test}: {held.encoding_hint}"), err=True)
    loaded = open_model(**placing)
    resolve_layers(given["layers"], find_blocks(loaded.model, loaded.blocks).n_layers)
    return Setting(
        loaded=loaded,
        train=learned,
        test=held,
        work=work or out / "work",
        report=progress,
        limit=reading["limit"],
        reading=reading if test is not None else {},
        **given,
    )
