"""``emowatch calibrate BANK DATA``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click

from emowatch.cli.bars import progress, stoppable
from emowatch.cli.options import (
    PLACING,
    check_placing,
    data_options,
    model_options,
    open_model,
    tell_left_out,
)
from emowatch.errors import UsageError
from emowatch.text import clean, clean_line


@click.command()
@click.argument("bank")
@click.argument("data")
@model_options
@data_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the calibrated bank. Default: the bank's own, where BANK is a path.",
)
@click.option(
    "--level",
    type=click.FloatRange(0.5, 0.99),
    default=0.9,
    show_default=True,
    help="Share of texts whose true label the sets are to hold.",
)
@click.option(
    "--abstain/--no-abstain",
    default=True,
    show_default=True,
    help="Let the bank abstain from states unlike those of DATA.",
)
@click.option(
    "--temperatures/--keep-temperatures",
    default=False,
    help="Fit temperatures anew too, to 30 % of DATA. Default: keep them.",
)
@click.option("--work", type=click.Path(path_type=Path), help="Keep states and replies here.")
@click.option("--overwrite", is_flag=True, help="Replace the bank that --out holds.")
def command(
    bank: str,
    data: str,
    out: Path | None,
    level: float,
    abstain: bool,
    temperatures: bool,
    overwrite: bool,
    **given: Any,
) -> None:
    """Give a bank label sets and abstention, from text it has not seen.

    DATA is labelled as in training. Of a hub data set the split validation is read. Heads stay as
    they are, and scores with them unless temperatures are fitted anew.
    """
    from emowatch.bank import list_banks, load_bank
    from emowatch.workshop.calibrating import calibrate_bank
    from emowatch.workshop.corpora import read_corpus, split_of
    from emowatch.workshop.outputs import check_output, copy_beside
    from emowatch.workshop.uncertainty import KEEPS

    work = given.pop("work")
    found = load_bank(bank)
    path = Path(os.path.expanduser(bank))
    folder = path if path.exists() else list_banks().get(bank)
    if folder is not None and folder.is_file():
        folder = folder.parent
    if out is None and not path.exists():  # named: shipped with the package, or a hub's
        raise UsageError(
            f"Could not calibrate {clean_line(bank)!r} in its place: a bank is changed only where "
            "its folder or file is named. Name a folder for the calibrated one with --out."
        )
    target = folder if out is None else out
    assert target is not None
    check_output(target)
    is_other = folder is None or target.resolve() != folder.resolve()
    if is_other and (target / "probe.safetensors").exists() and not overwrite:
        raise UsageError(
            f"Could not calibrate into {clean_line(str(target))!r}: it holds a bank. Name another "
            "folder with --out, or pass --overwrite to replace it."
        )
    if work is not None:
        check_output(work, "--work")
    placing = {key: given.pop(key) for key in PLACING}
    check_placing(**placing)
    given["split"] = split_of(data, given["split"], "validation")
    corpus = read_corpus(data, labels=found.card.labels, min_per_class=0, **given)
    tell_left_out(corpus, given["limit"])
    loaded = open_model(**placing)
    with tempfile.TemporaryDirectory() as temporary, stoppable(kept=work is not None):
        made = calibrate_bank(
            found,
            corpus,
            loaded,
            folder=folder,
            work=work or Path(temporary),
            report=progress,
            level=level,
            keeps=KEEPS if abstain else None,
            temperatures=temperatures,
        )
    if is_other and folder is not None:
        copy_beside(folder, target)
    made.save(target)
    if temperatures:
        place = found.card.layers.index(found.card.primary)
        for first, before, after in zip(
            made.card.bins,
            found.tensors["temperature"][place].tolist(),
            made.tensors["temperature"][place].tolist(),
            strict=True,
        ):
            click.echo(f"from offset {first}: temperature {before:.2f}, now {after:.2f}")
    uncertainty = made.card.uncertainty
    assert uncertainty is not None
    for first, threshold, groups, pooled in zip(
        made.card.bins,
        uncertainty.thresholds,
        uncertainty.groups,
        uncertainty.pooled,
        strict=True,
    ):
        rests = "as of all offsets" if pooled else "of its own"
        click.echo(
            f"from offset {first}: labels of {threshold:.3f} or more ({groups} groups, {rests})"
        )
    click.echo(clean(f"Next: emowatch evaluate {target} TEST-DATA --save"), err=True)
