"""Draw the curves of persistence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emowatch.colours import LIGHT, colours_of
from emowatch.studies.nulls import SHARE, spread_of
from emowatch.studies.persistence.measured import Measured

Doubles = NDArray[np.float64]
BLUE, GREY, RED, GREEN = "#0072B2", "#999999", "#D55E00", "#00775A"


def draw_accuracy(canvas: Any, *, measured: Measured) -> None:
    """Draw accuracy by offset beside its controls."""
    axes = canvas.subplots()
    for accuracy, name, colour in (
        (measured.weighted.accuracy, "state, survivorship weighted", BLUE),
        (measured.leak.accuracy, "reply alone", RED),
    ):
        _band(axes, accuracy[:, : measured.reach], name, colour)
    found = [spread_of(orders, SHARE) for orders in measured.nulls[:, : measured.reach].T]
    nulls = [one for one in found if one is not None]
    if nulls:
        axes.plot([one.value for one in nulls], color=GREY, label="shuffled labels")
        ends = np.array([one.interval for one in nulls]).T
        axes.fill_between(range(len(nulls)), *ends, color=GREY, alpha=0.2, linewidth=0)
    left = measured.observed.accuracy[0, : measured.reach]
    axes.plot(left, color=BLUE, linestyle="--", linewidth=1, label="state, replies left")
    axes.axhline(1 / measured.found.n_labels, color="black", linestyle=":", label="chance")
    axes.set(xlabel="offset in the reply", ylabel="balanced accuracy", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)


def draw_labels(canvas: Any, *, measured: Measured) -> None:
    """Draw the recall of each label in a panel of its own."""
    names = measured.card.labels
    columns = 4
    panels = canvas.subplots(-(-len(names) // columns), columns, sharex=True, sharey=True)
    flat = np.atleast_1d(panels).ravel()
    colours = colours_of(names, LIGHT)
    counts = measured.found.counts[:, : measured.reach]
    for label, (axes, name) in enumerate(zip(flat, names, strict=False)):
        recall = measured.weighted.recall[:, label, : measured.reach]
        axes.fill_between(
            range(measured.reach), counts[label] / counts[label, 0], color=GREY, alpha=0.15, lw=0
        )
        _band(axes, recall, name, colours[name])
        axes.set_title(f"{name} (n = {counts[label, 0]} to {counts[label, -1]})", fontsize=9)
        axes.set_ylim(0, 1)
    for axes in flat[len(names) :]:
        axes.set_axis_off()
    for axes in flat[max(0, len(names) - columns) : len(names)]:  # nothing stands below these
        axes.tick_params(labelbottom=True)
    canvas.supxlabel("offset in the reply", fontsize=9)
    canvas.supylabel("recall; grey: share of replies left", fontsize=9)


def draw_lags(canvas: Any, *, measured: Measured) -> None:
    """Draw how alike readings are so many tokens apart."""
    axes = canvas.subplots()
    found = measured.persistence
    for values, name, colour in (
        (found.emotion, "emotion directions", BLUE),
        (found.random, "random directions of equal variance", GREY),
    ):
        means = values.mean(2)  # [lags, 1 + resamples]
        low, high = np.quantile(means[:, 1:], (0.025, 0.975), axis=1)
        axes.plot(found.lags, means[:, 0], marker="o", color=colour, label=name)
        axes.fill_between(found.lags, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(found.lags, [str(lag) for lag in found.lags])
    axes.axhline(0, color="black", linestyle=":")
    axes.set(xlabel="tokens apart", ylabel="correlation")
    axes.legend(frameon=False, fontsize=8)


def _band(axes: Any, values: Doubles, name: str, colour: str) -> None:
    """Draw ``[1 + resamples, offsets]``: the figure, and 95 % of its resamples."""
    low, high = np.nanquantile(values[1:], (0.025, 0.975), axis=0)
    axes.plot(values[0], color=colour, label=name)
    axes.fill_between(range(values.shape[1]), low, high, color=colour, alpha=0.2, linewidth=0)
