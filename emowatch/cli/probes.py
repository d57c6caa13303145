"""``emowatch probes`` and ``emowatch probes show NAME``."""

from __future__ import annotations

import json

import click

from emowatch.cli.exits import report_error
from emowatch.errors import EmowatchError
from emowatch.text import clean


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List banks, or show one."""
    if context.invoked_subcommand is not None:
        return
    from emowatch.bank import list_banks, load_bank  # torch: seconds

    rows = []
    for name, folder in list_banks().items():
        try:
            card = load_bank(folder).card
        except EmowatchError as error:  # one broken bank hides no other
            report_error(error)
            continue
        found = {m.layer: m for m in card.evaluation.layers} if card.evaluation else {}
        accuracy = found[card.primary].balanced_accuracy if card.primary in found else None
        rows.append(
            {
                "name": name,
                "model": card.model,
                "target": card.target,
                "head": card.head,
                "readout": card.readout,
                "labels": list(card.labels),
                "primary": card.primary,
                "balanced_accuracy": accuracy,
                "chance": 1 / len(card.labels),
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif not rows:
        click.echo("There are no banks. Train one with: emowatch train DATA --out DIR", err=True)
    else:
        for row in rows:
            reached = row["balanced_accuracy"]
            figure = "not evaluated" if reached is None else f"{reached:.3f}"
            line = (
                f"{row['name']:<22} {row['model']}  target {row['target']}, {row['head']}, "
                f"layer {row['primary']}, balanced accuracy {figure} (chance {row['chance']:.3f})"
            )
            click.echo(clean(line))


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The card as JSON.")
def show(name: str, as_json: bool) -> None:
    """Print the card of a bank, by name, path or hub id."""
    from emowatch.bank import load_bank  # torch: seconds
    from emowatch.bank.readme import render_card

    card = load_bank(name).card
    click.echo(card.to_json() if as_json else clean(render_card(card)))
