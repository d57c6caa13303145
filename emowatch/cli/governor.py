"""``emowatch governor tune LABEL`` and ``emowatch governor test TUNING``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from emowatch.cli.bars import stoppable
from emowatch.cli.dosing import layers_of, open_scene, scene_options
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line


@click.group()
def command() -> None:
    """Find gains for the governor, and test how well it keeps a set-point."""


@command.command()
@click.argument("label")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="governor.json",
    show_default=True,
    help="Tuning to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace the tuning.")
@click.option("--layer", type=int, help="Where to steer. Default: the middle one.")
@click.option(
    "--dose",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Strength that is compared with none.",
)
@scene_options(tokens=80, rounds=2)
def tune(
    label: str, out: Path, overwrite: bool, layer: int | None, dose: float, **given: Any
) -> None:
    """Measure how far a dose moves LABEL's score, and choose gains that are stable for it."""
    if out.exists() and not overwrite:
        raise UsageError(
            f"Could not write {clean_line(str(out))!r}: it is there already. Name another file, "
            "or pass --overwrite."
        )
    if not out.absolute().parent.is_dir():
        raise UsageError(
            f"Could not write {clean_line(str(out))!r}: there is no such folder. Make it first."
        )
    scene = open_scene(label, at_least=16, **given)
    (where,) = layers_of(None if layer is None else str(layer), scene)
    from emowatch.dosing.governing import tune as tuned

    with stoppable():
        found = tuned(scene, where, dose)
    found.save(out)
    low, high = found.slope_interval
    least, most = found.random_interval
    click.echo(
        clean(
            f"{label} of {found.bank}, read at layer {scene.bank.card.primary}, steered at layer "
            f"{found.layer}: score {found.scores[0]:.3f} unsteered, {found.scores[1]:.3f} at "
            f"strength {dose:g}\n"
            f"slope {found.slope:.3f} [{low:.3f}, {high:.3f}] per unit of strength; along a random "
            f"direction {found.random_slope:+.3f} [{least:+.3f}, {most:+.3f}]; "
            f"{found.replies} replies\n"
            f"gains kp {found.kp:.3g}, ki {found.ki:.3g}: stable up to {found.margin:.1f} times "
            f"as much\n{out}"
        )
    )
    click.echo(
        clean(
            f"Next: emowatch governor test {out} --set-point 0.4\n"
            f"      emowatch chat --plugin governor:tuning={out},set-point={label}:0.4"
        ),
        err=True,
    )


@command.command("test")
@click.argument("tuning", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--set-point",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    required=True,
    help="Score to keep.",
)
@click.option(
    "--most",
    type=click.FloatRange(0, min_open=True),
    default=6.0,
    show_default=True,
    help="Largest strength.",
)
@click.option(
    "--times",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    help="Try the gains multiplied by this, too, as often as given. The loop should break where "
    "the tuning says.",
)
@scene_options(tokens=131, rounds=3)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a way.")
def test(
    tuning: Path,
    set_point: float,
    most: float,
    times: tuple[float, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Speak at length under the governor of TUNING, and beside it without, under proportional
    control alone, and along a random direction.

    Replies may not end before --max-new-tokens. Their first 30 tokens are for settling; the next
    100 are judged.
    """
    from emowatch.control import Tuning

    if not all(map(math.isfinite, times)):
        raise UsageError("Could not multiply the gains by what is no number: see --times.")
    held = Tuning.load(tuning)
    given["probe"] = given["probe"] or held.bank
    scene = open_scene(held.label, at_least=given["tokens"], **given)
    if scene.bank.card.name != held.bank:
        raise UsageError(
            f"The tuning {clean_line(str(tuning))!r} is of the bank {clean_line(held.bank)!r}: "
            "leave --probe out, or name that one."
        )
    if scene.bank.info.sha256 != held.sha256:
        raise UsageError(
            f"The tuning {clean_line(str(tuning))!r} is of another version of the bank "
            f"{clean_line(held.bank)!r}: tune again."
        )
    from emowatch.dosing.governing import hold

    with stoppable():
        kept = hold(scene, held, set_point, most, times)
    if as_json:
        for one in kept.values():
            click.echo(json.dumps(asdict(one)))
        return
    click.echo(
        clean(
            f"{held.label} at {set_point:g}: slope {held.slope:.3f}, gains stable up to "
            f"{held.margin:.1f} times as much; {next(iter(kept.values())).replies} replies each"
        )
    )
    click.echo(
        "way                         mean [95 %]            within .03  spread  strength  saturated"
        "  swing  re-read  perplexity  repeats  moves beside"
    )
    for one in kept.values():
        low, high = one.mean_interval
        click.echo(
            f"{one.name:<26}  {one.mean:.3f} [{low:.3f}, {high:.3f}]  {one.within:>9.0%}  "
            f"{one.spread:>6.3f}  {one.strength:>8.2f}  {one.saturated:>8.1%}   "
            f"{one.swing:>4.2f}    {one.reread:.3f}  "
            f"{one.perplexity:>10.2f}  {100 * one.repetition:>+5.1f} %  {_beside(one)}"
        )


def _beside(one: Any) -> str:
    """Name the other label that has moved most in the text, where it has."""
    low, high = one.aside_interval
    if not one.aside_change:
        return "-"
    return clean(f"{one.aside} {one.aside_change:+.3f} [{low:+.3f}, {high:+.3f}]")
