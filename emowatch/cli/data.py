"""``emowatch data label | rewrite | synthesize | templates | filter | split | card``."""

from __future__ import annotations

import click

from emowatch.cli.data_sorting import card, filter_, split
from emowatch.cli.data_writing import label, rewrite, synthesize, templates


@click.group()
def command() -> None:
    """Build a labelled corpus with a model: label, rewrite, synthesize, filter, split."""


for one in (label, rewrite, synthesize, templates, filter_, split, card):
    command.add_command(one)
