"""``emowatch steer tune LABEL``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.bars import stoppable
from emowatch.cli.dosing import layers_of, open_scene, scene_options
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line

if TYPE_CHECKING:
    from emowatch.dosing.doses import Dose


@click.group()
def command() -> None:
    """Measure what steering does, before you steer."""


@command.command()
@click.argument("label")
@click.option("--layer", metavar="4,5", help="Where to steer. Default: the middle one.")
@click.option(
    "--strengths",
    default="0.5,1,2,4,8",
    show_default=True,
    help="In units of the residual's RMS.",
)
@scene_options(tokens=60, rounds=1)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a dose.")
def tune(label: str, layer: str | None, strengths: str, as_json: bool, **given: Any) -> None:
    """Try strengths along LABEL's direction and tell which works and keeps the text fluent.

    Each dose stands beside a random direction of equal length. "re-read" is the score of the
    reply's text read without steering: where it does not rise, the push was measured, not what
    the model says. A dose is not fluent where perplexity, to the unsteered model, is above 2 times
    that of unsteered replies, or runs of four tokens repeat in 10 points more of the text.
    """
    doses = _numbers(strengths)
    scene = open_scene(label, at_least=16, **given)
    layers = layers_of(layer, scene)
    primary = scene.bank.card.primary
    if late := [one for one in layers if one >= primary]:
        click.echo(
            f"the bank reads layer {primary}, before what is done at layer "
            f"{', '.join(map(str, late))}: the score can change through later words alone",
            err=True,
        )
    from emowatch.dosing.doses import best, respond

    if not as_json:
        click.echo(
            clean_line(
                f"{label} of {scene.bank.card.name}, read at layer {scene.bank.card.primary}; "
                f"{len(scene.prompts) * scene.rounds} replies a dose; brackets are 95 % intervals"
            )
        )
        click.echo(
            "layer  strength  along    score  change                    re-read change            "
            "perplexity          repeats"
        )
    found = []
    with stoppable():
        for dose in respond(scene, layers, doses):
            found.append(dose)
            click.echo(json.dumps(asdict(dose)) if as_json else _row(dose))
    chosen = best(found)
    if chosen is None:
        click.echo(f"no dose raises {clean_line(label)} for certain and keeps it fluent", err=True)
        return
    click.echo(
        clean(
            f"largest rise that stays fluent: strength {chosen.strength:g} at layer "
            f"{chosen.layer}\nNext: emowatch chat --plugin steer:direction="
            f"{scene.bank.card.name}/{label},strength={chosen.strength:g},layer={chosen.layer}"
        ),
        err=True,
    )


def _row(dose: Dose) -> str:
    low, high = dose.change_interval
    least, most = dose.reread_change_interval
    cheap, dear = dose.perplexity_interval
    if not dose.strength:
        return f"    -         0  -        {dose.score:.3f}  (unsteered)"
    return (
        f"{dose.layer:>5}  {dose.strength:>8g}  {dose.along:<7}  {dose.score:.3f}  "
        f"{dose.change:+.3f} [{low:+.3f}, {high:+.3f}]  "
        f"{dose.reread_change:+.3f} [{least:+.3f}, {most:+.3f}]  "
        f"{dose.perplexity:.2f} [{cheap:.2f}, {dear:.2f}]  {100 * dose.repetition:+.1f} %"
        f"{'' if dose.is_fluent else '  not fluent'}"
    )


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < abs(number) < float("inf") for number in found):
        raise UsageError(
            f"Could not read --strengths {clean_line(text)!r}: numbers other than 0 are needed, as "
            "in 1,2,4."
        )
    return found
