"""Draw recall by label under several system prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from emowatch.studies.findings import Figure, Table
from emowatch.studies.shares import Agreement

COLOURS = ("#999999", "#D55E00", "#0072B2", "#00775A")
MARKERS = ("o", "s", "^", "D")
APART = 0.22
"""Between the marks of one label, in widths of a label."""


def recall_figure(
    agreed: Mapping[str, Agreement],
    labels: Sequence[str],
    data: Table,
    chance: float,
    model: str,
) -> Figure:
    """Make the figure: a mark with its interval for each prompt and label."""
    n = next(iter(agreed.values())).n
    return Figure(
        name="recalls",
        caption=f"How often a reply of {model} is judged to express the emotion of its message, by "
        f"system prompt (n = {n} messages); lines are 95 % intervals, flat marks the means with "
        "verdicts permuted over the messages.",
        draw=partial(_draw, agreed=agreed, labels=labels, chance=chance),
        data=data,
        size=(8.0, 4.4),
    )


def _draw(
    canvas: Any, *, agreed: Mapping[str, Agreement], labels: Sequence[str], chance: float
) -> None:
    axes = canvas.subplots()
    for number, (prompt, found) in enumerate(agreed.items()):
        colour = COLOURS[number % len(COLOURS)]
        shift = (number - (len(agreed) - 1) / 2) * APART
        places = [place for place, recall in enumerate(found.recalls) if recall is not None]
        recalls = [recall for recall in found.recalls if recall is not None]
        nulls = [null for null in found.recall_nulls if null is not None]
        values = [recall.value for recall in recalls]
        ends = [
            [recall.value - recall.low for recall in recalls],
            [recall.high - recall.value for recall in recalls],
        ]
        x = [place + shift for place in places]
        marker = MARKERS[number % len(MARKERS)]
        axes.errorbar(x, values, yerr=ends, fmt=marker, color=colour, capsize=3, label=prompt)
        axes.plot(x, [null.value for null in nulls], "_", color=colour, markersize=9, alpha=0.7)
    axes.axhline(chance, color="black", linestyle=":", label="chance")
    axes.set_xticks(range(len(labels)), labels, rotation=20)
    axes.set(ylabel="recall", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8, title="system prompt", title_fontsize=8)
