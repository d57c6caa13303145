"""``emowatch plugins``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from emowatch.plugins import PluginReport, report_plugins
from emowatch.text import clean_line


@click.command()
@click.option("--hooks", is_flag=True, help="Import each, and tell its hooks or why it fails.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def command(hooks: bool, as_json: bool) -> None:
    """List installed plugins."""
    reports = report_plugins(importing=hooks)
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports], indent=1))
        return
    rows = [_row(report, hooks) for report in reports]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _row(report: PluginReport, imported: bool) -> tuple[str, ...]:
    origin = f"{report.source} {report.version}".strip()
    told = [report.status, report.error or ", ".join(report.hooks)] if imported else [report.target]
    return tuple(clean_line(cell) for cell in (report.name, origin, *told))
