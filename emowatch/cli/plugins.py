"""``emowatch plugins``, ``emowatch plugins new NAME`` and ``emowatch plugins check PLUGIN``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from emowatch.cli.exits import Exit
from emowatch.plugins import PluginReport, parse_plugin, report_plugins
from emowatch.text import clean, clean_line


@click.group(invoke_without_command=True)
@click.option("--hooks", is_flag=True, help="Import each, and tell its hooks or why it fails.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_context
def command(context: click.Context, hooks: bool, as_json: bool) -> None:
    """List installed plugins, write a new one, or check one."""
    if context.invoked_subcommand is not None:
        return
    reports = report_plugins(importing=hooks)
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports], indent=1))
        return
    rows = [_row(report, hooks) for report in reports]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@command.command()
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default=True,
    help="Folder to write it in.",
)
def new(name: str, out: Path) -> None:
    """Write a plugin distribution that passes its own tests.

    NAME is what --plugin will take, such as mood-lamp.
    """
    from emowatch.scaffold import write_plugin  # jinja2

    files = write_plugin(name, out)
    for file in files:
        click.echo(clean(str(file)))
    folder = files[0].parent
    click.echo(clean(f"Next: pip install -e '{folder}[dev]', then pytest {folder}"), err=True)


@command.command()
@click.argument("plugin", metavar="PLUGIN")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--trace", metavar="TRACE", help="Session to use; default: a recorded one.")
def check(plugin: str, as_json: bool, trace: str | None) -> None:
    """Hold a plugin to the contract of the hooks.

    PLUGIN is the name of an installed one, FILE.py, FILE.py:Class, or the folder of a
    distribution; options follow as in NAME:key=value. Its code is run.
    """
    from emowatch.conformance import check_plugin, find_plugin
    from emowatch.trace import Trace

    source, options = _parted(plugin)
    known = None if trace is None else Trace.load(trace)
    found = {
        name: check_plugin(make, known, group=click.Group(name))
        for name, make in find_plugin(source, options).items()
    }
    if as_json:
        told = {name: [asdict(one) for one in checks] for name, checks in found.items()}
        click.echo(json.dumps(told))
    else:
        for name, checks in found.items():
            click.echo(clean_line(name))
            for one in checks:
                sign = "ok    " if one.passed else "FAILED"
                click.echo(f"{sign}  {clean_line(one.name)}: {clean_line(one.found)}")
    if not all(one.passed for checks in found.values() for one in checks):
        raise click.exceptions.Exit(Exit.FAILED)


def _parted(plugin: str) -> tuple[str, dict[str, str]]:
    """Part what is named from its options; a class after a file is no option."""
    source, colon, rest = plugin.partition(":")
    if source.endswith(".py") and "=" not in rest.partition(":")[0]:
        attribute, _, more = rest.partition(":")
        return f"{source}{colon}{attribute}".rstrip(":"), parse_plugin(f"x:{more}")[1]
    return source, parse_plugin(plugin)[1]


def _row(report: PluginReport, imported: bool) -> tuple[str, ...]:
    origin = f"{report.source} {report.version}".strip()
    told = [report.status, report.error or ", ".join(report.hooks)] if imported else [report.target]
    return tuple(clean_line(cell) for cell in (report.name, origin, *told))
