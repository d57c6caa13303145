"""What `steer` and `governor` share: a model that answers messages, and tables of what it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emowatch.cli.options import PLACING, Function, check_placing, model_options, open_model
from emowatch.errors import UsageError
from emowatch.text import clean_line

if TYPE_CHECKING:
    from emowatch.bank import ProbeBank
    from emowatch.dosing.speaking import Scene

DEFAULT_PROBE = "demo-tone7"
"""Its target is the tone of the reply, which is what steering is to change."""


def scene_options(tokens: int, rounds: int) -> Callable[[Function], Function]:
    """Add what chooses model, bank and messages."""

    def add(function: Function) -> Function:
        for option in reversed(
            (
                click.option(
                    "--probe", metavar="NAME|PATH|ID", help=f"Bank. Default: {DEFAULT_PROBE}."
                ),
                click.option(
                    "--prompts",
                    type=click.Path(path_type=Path, dir_okay=False, exists=True),
                    metavar="FILE",
                    help="Messages to answer, one a line. Default: 20 of everyday talk.",
                ),
                click.option(
                    "--max-new-tokens",
                    "tokens",
                    type=click.IntRange(2),
                    default=tokens,
                    show_default=True,
                ),
                click.option(
                    "--rounds",
                    type=click.IntRange(1),
                    default=rounds,
                    show_default=True,
                    help="Replies to each message.",
                ),
                click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
            )
        ):
            function = option(function)
        return model_options(function)

    return add


def open_scene(
    label: str, probe: str | None, prompts: Path | None, rounds: int, at_least: int, **given: Any
) -> Scene:
    """Load bank and model, the cheap one first, and check that the label is known.

    Raises:
        UsageError: for a label that is not, or a file without messages.
    """
    if probe is None and given["model"] is not None:
        raise UsageError("No bank was named for this model: pass --probe.")
    messages = None if prompts is None else _messages(prompts)
    from emowatch.bank import load_bank
    from emowatch.dosing.prompts import PROMPTS

    bank = load_bank(probe or DEFAULT_PROBE)
    placing = {key: given[key] for key in PLACING}
    check_placing(**placing)
    _check_label(bank, label)
    from emowatch.dosing.speaking import Scene

    return Scene(
        loaded=open_model(**placing),
        bank=bank,
        label=label,
        prompts=messages or PROMPTS,
        tokens=given["tokens"],
        at_least=at_least,
        rounds=rounds,
        seed=given["seed"],
    )


def layers_of(text: str | None, scene: Scene) -> list[int]:
    """Read ``--layer``: some layers, or that nearest to the middle.

    Raises:
        UsageError: for what is no layer that the bank has a direction at.
    """
    card = scene.bank.card
    known = [layer for layer in card.layers if layer < card.n_layers]
    if text is None:
        return [min(known, key=lambda layer: abs(layer - card.n_layers / 2))]
    try:
        layers = [int(part) for part in text.split(",")]
    except ValueError:
        layers = []
    if not layers or not set(layers) <= set(known):
        raise UsageError(
            f"Could not steer at --layer {clean_line(text)}: the bank {clean_line(card.name)!r} "
            f"has directions at the layers {', '.join(map(str, known))}."
        )
    return layers


def _check_label(bank: ProbeBank, label: str) -> None:
    if label not in bank.card.labels:
        raise UsageError(
            f"The bank {clean_line(bank.card.name)!r} has no label {clean_line(label)!r}; its "
            f"labels are {', '.join(map(clean_line, bank.card.labels))}."
        )


def _messages(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"Could not read {clean_line(str(path))!r}: it is not UTF-8.") from error
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise UsageError(f"The file {clean_line(str(path))!r} holds no messages, one a line.")
    return found
