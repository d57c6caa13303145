"""``emowatch diff FIRST SECOND``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from emowatch.text import clean_line


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--bank", help="Whose scores are compared; default: the first bank of each.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of permutations."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(first: str, second: str, bank: str | None, seed: int, as_json: bool) -> None:
    """Compare two traces of the same prompts token by token.

    Tokens are paired by turn, row and offset. Tells for each emotion how its score differs, with
    a 95 % interval and the chance of such a difference in any emotion.
    """
    from emowatch.differing import FEWEST_REPLIES, compare_traces
    from emowatch.trace import Trace

    traces = Trace.load(first), Trace.load(second)
    found = compare_traces(*traces, bank=bank, seed=seed)
    prompts = [{(t.index, t.sequence): t.prompt_tokens for t in one.turns} for one in traces]
    if any(prompts[0][key] != prompts[1][key] for key in prompts[0].keys() & prompts[1].keys()):
        click.echo("emowatch: the prompts differ in length; were they the same?", err=True)
    if as_json:
        click.echo(json.dumps(asdict(found) | {"p": found.p}))
        return
    alone = f", {found.only_first} and {found.only_second} without a partner"
    click.echo(clean_line(f"{found.bank}: {found.tokens} pairs of tokens{alone}"))
    click.echo(f"distance {found.distance:.3f}; same dominant label at {found.same_dominant:.1%}")
    if found.parted_at is not None:
        turn, row, offset = found.parted_at
        click.echo(f"dominant labels part at turn {turn}, row {row}, offset {offset}")
    width = max(len(clean_line(one.label)) for one in found.labels)
    click.echo(f"\n{'':<{width}}   first  second  difference [95 %]           p")
    for one in found.labels:
        line = f"{clean_line(one.label):<{width}}  {one.first:6.3f}  {one.second:6.3f}  "
        line += f"{one.difference:+.3f}"
        if one.interval is not None and one.p is not None:
            line += f" [{one.interval[0]:+.3f}, {one.interval[1]:+.3f}]  {one.p:.4f}"
        click.echo(line)
    if found.p is None:
        click.echo(
            f"\n{found.replies} replies are too few to tell a difference from chance; compare "
            f"{FEWEST_REPLIES} or more."
        )
    else:
        click.echo(f"\np is over all emotions together, from exchanging {found.replies} replies.")
