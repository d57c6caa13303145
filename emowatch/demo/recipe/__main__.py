"""``python -m emowatch.demo.recipe --data DIR``: make the demo model, then its banks."""

from __future__ import annotations

from pathlib import Path

import click

from emowatch.demo.recipe import stages
from emowatch.demo.recipe.banks import BANKS, make_bank, measure_bank
from emowatch.demo.recipe.recording import record_session
from emowatch.demo.recipe.release import release_model

PARTS = ("model", *BANKS, "trace")


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--work", type=click.Path(path_type=Path), default="demo-work", show_default=True)
@click.option("--pretrain-tokens", type=int, default=20_000_000, show_default=True)
@click.option("--finetune-tokens", type=int, default=1_597_440, show_default=True)
@click.option("--tone-tokens", type=int, default=3_000_000, show_default=True)
@click.option("--turns-tokens", type=int, default=1_500_000, show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, help="Needs a C++ compiler.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Make these parts only.")
@click.option("--keep-heads", is_flag=True, help="Calibrate and measure banks; train none.")
def main(
    data: Path,
    work: Path,
    only: tuple[str, ...],
    keep_heads: bool,
    compiled: bool,
    **numbers: int,
) -> None:
    """Make the demo model and the shipped banks from the public data in DATA.

    As it stands it makes what is shipped; more tokens make a better model.

    Checkpoints are kept in WORK; a run that was stopped goes on from there.
    """
    plan = stages.Plan(
        data=data,
        work=work,
        compiled=compiled,
        **numbers,
    )
    work.mkdir(parents=True, exist_ok=True)
    wanted = only or (tuple(BANKS) if keep_heads else PARTS)
    if "model" in wanted and not keep_heads:
        tokenizer = stages.make_tokenizer(plan)
        model = stages.new_model(plan)
        stages.pretrain(plan, model, tokenizer)
        stages.finetune(plan, model, tokenizer)
        stages.tune_tone(plan, model, tokenizer)
        stages.continue_talks(plan, model, tokenizer)
        release_model(plan)
    for name in BANKS:
        if name in wanted:
            (measure_bank if keep_heads else make_bank)(name, plan)
    if "trace" in wanted and not keep_heads:
        record_session()


if __name__ == "__main__":
    main()
