"""``emowatch assert TRACE EXPRESSION``."""

from __future__ import annotations

import json
import math

import click

from emowatch.cli.exits import Exit
from emowatch.text import clean


@click.command(name="assert")
@click.argument("trace", required=False)
@click.argument("expression", required=False)
@click.option("--bank", help="Whose scores count; default: the first bank's.")
@click.option("--functions", is_flag=True, help="List what an expression may ask for.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    trace: str | None,
    expression: str | None,
    bank: str | None,
    functions: bool,
    as_json: bool,
) -> None:
    """Hold a trace to an expression; exit with 1 if it does not hold.

    As in: emowatch assert run.jsonl "max(anger) < .6 and half_life(fear) < 40"
    """
    from emowatch.assertions import function_table, judge_trace
    from emowatch.trace import Trace

    if functions:
        for call, says in function_table():
            click.echo(f"{call:<22} {says}")
        return
    if trace is None or expression is None:
        raise click.UsageError('Name a trace and an expression, such as "max(anger) < .6".')
    verdict = judge_trace(Trace.load(trace), expression, bank=bank)
    if as_json:
        compared = [
            {"text": one.text, "holds": one.holds, "values": dict(map(_plain, one.values))}
            for one in verdict.compared
        ]
        click.echo(json.dumps({"holds": verdict.holds, "compared": compared}))
    else:
        click.echo(clean(verdict.told))
    if not verdict.holds:
        raise click.exceptions.Exit(Exit.FAILED)


def _plain(measured: tuple[str, float]) -> tuple[str, float | str]:
    """JSON has no infinity."""
    call, value = measured
    return call, value if math.isfinite(value) else str(value)
