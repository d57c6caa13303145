"""``emowatch report TRACE --html PAGE``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from emowatch.errors import UsageError
from emowatch.text import clean, clean_line


@click.command()
@click.argument("trace")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write this page.")
@click.option("--bank", help="Whose scores are told; default: the first bank's.")
@click.option("--overwrite", is_flag=True, help="Replace the page.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    trace: str, html: Path | None, bank: str | None, overwrite: bool, as_json: bool
) -> None:
    """Tell how a conversation went, turn by turn, also as one page.

    With --html as one self-contained page, with the traces, the alarms and, where the trace
    holds it, the text.
    """
    from emowatch.drift.turns import FEWEST_TURNS, movements, summarise
    from emowatch.trace import Trace

    if html is not None and html.exists() and not overwrite:
        raise UsageError(
            f"Could not write {clean_line(str(html))!r}: it is there already. Name another page, "
            "or pass --overwrite."
        )
    held = Trace.load(trace)
    if bank is not None and bank not in held.by_bank:
        raise UsageError(
            f"There is no bank {clean_line(bank)!r} in this trace; there are: "
            f"{clean_line(', '.join(held.by_bank))}."
        )
    if html is not None:
        from emowatch.reporting import render_page  # jinja2

        html.write_text(render_page(held, bank=bank), encoding="utf-8", errors="replace")
        click.echo(clean(f"wrote {html}"), err=True)
        return
    summaries = summarise(held, bank)
    rows = sorted({one.sequence for one in summaries})
    moved = {row: movements([one for one in summaries if one.sequence == row]) for row in rows}
    if as_json:
        click.echo(
            json.dumps(
                {
                    "turns": [_plain(one) for one in summaries],
                    "movements": {row: [asdict(m) for m in found] for row, found in moved.items()},
                }
            )
        )
        return
    if not summaries:
        click.echo("emowatch: the trace holds no turn", err=True)
    for one in summaries:
        place = f"turn {one.turn}" + (f" row {one.sequence}" if one.sequence else "")
        for segment, scores in one.means.items():
            best = sorted(scores.items(), key=lambda pair: -pair[1])[:4]
            told = ", ".join(f"{label} {value:.2f}" for label, value in best)
            click.echo(clean_line(f"{place} {segment}: {told}"))
    for change in {(c.turn, c.sequence, c.plugin, c.direction): c for c in held.steerings}.values():
        row_name = f" row {change.sequence}" if change.sequence else ""
        how = "would have been steered" if change.shadow else "steered"
        click.echo(
            clean_line(
                f"turn {change.turn}{row_name} {how} along {change.direction} by {change.plugin}"
            )
        )
    for row, found in moved.items():
        for one_label in found:
            if one_label.slope_p is None or one_label.change_p is None:
                click.echo(f"row {row}: fewer than {FEWEST_TURNS} turns say nothing of a trend")
                break
            click.echo(
                clean_line(
                    f"row {row} {one_label.label}: {one_label.slope:+.3f} a turn "
                    f"(p {one_label.slope_p:.3f}), {one_label.change:+.2f} from the turn at index "
                    f"{one_label.change_at} on (p {one_label.change_p:.3f})"
                )
            )


def _plain(summary: Any) -> dict[str, Any]:
    return {
        "turn": summary.turn,
        "sequence": summary.sequence,
        "tokens": summary.tokens,
        "means": {segment: dict(scores.items()) for segment, scores in summary.means.items()},
    }
