"""``emowatch plugins``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from emowatch.plugins import report_plugins
from emowatch.text import clean_line


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def command(as_json: bool) -> None:
    """List installed plugins."""
    reports = report_plugins()
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports], indent=1))
        return
    width = max(len(report.name) for report in reports)
    for report in reports:
        what = report.error if report.status == "failed" else ", ".join(report.hooks)
        origin = f"{report.source} {report.version}".strip()
        line = f"{report.name:<{width}}  {report.status:<6}  {origin}  {what}"
        click.echo(clean_line(line))
