"""``emowatch study notebook ENVENT.csv``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from emowatch.cli.bars import progress, stoppable
from emowatch.cli.options import PLACING, check_placing, folder_option, model_options, open_model
from emowatch.cli.studying import overwrite_option
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line
from emowatch.tui.summary import counted

if TYPE_CHECKING:
    from emowatch.studies.notebook.study import Part


@click.command()
@click.argument("data", metavar="ENVENT.csv")
@folder_option(default="studies/notebook", show_default=True, help="Folder of the report.")
@overwrite_option
@model_options
@click.option(
    "--parts",
    default="probes,appraisals,interventions",
    show_default=True,
    help="What to do.",
)
@click.option("--layers", help="all, 0,9 or 25%,50%; interventions need all. Default: all.")
@click.option("--limit", type=click.IntRange(1), help="At most so many texts, a fair sample.")
@click.option("--encoding", default="iso-8859-1", show_default=True, help="Of the file.")
@click.option(
    "--texts", type=click.IntRange(2), default=200, show_default=True, help="Pushed, at most."
)
@click.option(
    "--pairs", type=click.IntRange(1), default=200, show_default=True, help="Patched, at most."
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(16),
    default=1024,
    show_default=True,
    help="Tokens in a batch.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=42, show_default=True)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="States and answers. Default: work in --out.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    data: str,
    out: Path,
    parts: str,
    layers: str | None,
    as_json: bool,
    overwrite: bool,
    **given: Any,
) -> None:
    """Emotions and appraisals of crowd-enVENT, and what moves them (Tak et al.)."""
    from emowatch.studies.folder import PAGE, write_findings
    from emowatch.studies.notebook.accounts import read_accounts
    from emowatch.studies.notebook.study import NotebookOptions, study_notebook
    from emowatch.studies.plan import check_same
    from emowatch.studies.rendering import as_json as as_object
    from emowatch.studies.rendering import render_findings
    from emowatch.workshop.figures import require_matplotlib
    from emowatch.workshop.outputs import check_output

    require_matplotlib()
    check_output(out)
    chosen = _parts(parts)
    if layers is not None and "interventions" in chosen:
        raise UsageError(
            f"Could not use --layers {clean_line(layers)!r}: interventions need the probes of all "
            "layers. Leave it out, or pass --parts probes,appraisals."
        )
    placing = {key: given.pop(key) for key in PLACING}
    check_placing(**placing)
    accounts = read_accounts(data, encoding=given.pop("encoding"), limit=given.pop("limit"))
    counts = ", ".join(f"{label} {n}" for label, n in accounts.counts().items())
    click.echo(clean_line(f"{len(accounts)} texts: {counts}"), err=True)
    for reason, n in accounts.put_aside.items():
        click.echo(f"{counted(n, 'row')} put aside: {reason}", err=True)
    if "undecodable bytes" in accounts.put_aside:
        click.echo("the published file is in ISO-8859-1: leave --encoding out for it", err=True)
    work = given.pop("work") or out / "work"
    options = NotebookOptions(
        work=work, parts=chosen, layers=layers or "all", report=progress, **given
    )
    loaded = open_model(**placing)
    about = {"model": loaded.name, "texts": accounts.source, "limit": accounts.limit}
    check_same(out, about | {"seed": options.seed}, overwrite=overwrite)
    with stoppable():
        findings = study_notebook(accounts, loaded, options)
        write_findings(findings, out)
    click.echo(json.dumps(as_object(findings)) if as_json else clean(render_findings(findings)))
    click.echo(f"wrote {clean(str(out / PAGE))}", err=True)


def _parts(text: str) -> tuple[Part, ...]:
    from emowatch.studies.notebook.study import PARTS

    named = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in named if part not in PARTS]
    if unknown or not named:
        raise UsageError(
            f"Could not use --parts {clean_line(text)!r}: name one or more of "
            f"{', '.join(PARTS)}, with commas between them."
        )
    return cast("tuple[Part, ...]", tuple(part for part in PARTS if part in named))
