"""The figures of a step as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emowatch.text import clean_line
from emowatch.workshop.building.asking import Purse
from emowatch.workshop.building.built import Built


def spending(purse: Purse) -> dict[str, Any]:
    """Give what the answers took, as plain values."""
    cost = purse.cost
    return {
        "prompt_tokens": purse.prompt_tokens,
        "completion_tokens": purse.completion_tokens,
        "estimated_answers": purse.estimated,
        "cost": cost,
        "cost_of_this_run": None if cost is None else cost - purse.before,
    }


def render_built(name: str, built: Built, purse: Purse) -> str:
    """Lay the figures out in lines of at most 80 columns."""
    found = built.as_object()
    lines = [f"{name}: {found['rows']:,} rows of {built.asked:,} items"]
    for step, one in found["coverage"].items():
        lines.append(
            f"  {step:<10} coverage {_share(one['coverage'], one['coverage_interval'])}, "
            f"{one['read']:,} of {one['answered']:,} answers read"
        )
        if one["lost"]:
            lines.append(f"             {_counts(one['lost'])}")
    if gate := found["gate"]:
        lines.append(
            f"  gate       {_share(gate['share'], gate['share_interval'])} express what was asked "
            f"for; by chance {_figure(gate['chance'])}"
        )
        for asked, others in gate["found"].items():
            lines.append(f"    {clean_line(asked, 16):<16} found as {_counts(others)}")
    for title, counts in (("labels", "labels"), ("left out", "dropped"), ("to do", "pending")):
        if found[counts]:
            lines.append(f"  {title:<10} {_counts(found[counts])}")
    spent = spending(purse)
    tokens = f"{spent['prompt_tokens']:,} of prompts, {spent['completion_tokens']:,} of answers"
    lines.append(f"  tokens     {tokens}, earlier runs included")
    if spent["estimated_answers"]:
        lines.append(f"             estimated for {spent['estimated_answers']:,} answers")
    if spent["cost"] is not None:
        lines.append(
            f"  cost       {spent['cost']:.4f}, of which this run {spent['cost_of_this_run']:.4f}"
        )
    return "\n".join(lines)


def _share(share: float | None, interval: list[float] | None) -> str:
    if share is None or interval is None:
        return "– (nothing was answered)"
    return f"{share:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{clean_line(name, 40)} {n:,}" for name, n in counts.items())
