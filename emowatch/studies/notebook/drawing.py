"""Figures of the notebook study."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from emowatch.studies.findings import Cell, Figure, Table
from emowatch.studies.notebook.curves import Curve
from emowatch.workshop.metrics import Estimate

BLUE, GREY, RED, GREEN, ORANGE = "#0072B2", "#999999", "#D55E00", "#00775A", "#E69F00"


def curve_figures(curve: Curve, model: str, n: int) -> tuple[Figure, ...]:
    """Draw accuracy by layer beside its floors, and by layer and position."""
    return (
        Figure(
            name="accuracy",
            caption=f"Accuracy by layer of {model}, last token (n = {n}); bands are 95 % "
            "intervals.",
            draw=partial(_draw_curve, curve=curve),
            data=curve.table,
        ),
        Figure(
            name="heatmap",
            caption="Accuracy by layer and position from the end of the prompt.",
            draw=partial(_draw_positions, table=curve.positions),
            data=curve.positions,
            size=(4.6, 4.8),
        ),
    )


def effect_figure(table: Table, columns: tuple[str, str], what: str) -> Figure:
    """Draw an effect by layer, one panel for each kind of site, beside its random control."""
    return Figure(
        name=f"{table.name}-by-layer",
        caption=f"{table.title}; bands are 95 % intervals, grey is the random control.",
        draw=partial(_draw_effect, table=table, columns=columns, what=what),
        data=table,
        size=(9.0, 3.4) if "site" in table.columns else (6.0, 3.8),
    )


def _draw_curve(canvas: Any, *, curve: Curve) -> None:
    axes = canvas.subplots()
    table = curve.table
    layers = table.column("layer")
    for column, colour, marker in (
        ("accuracy", BLUE, "o"),
        ("MLP", ORANGE, "^"),
        ("first word", GREEN, "s"),
        ("shuffled labels", GREY, None),
    ):
        _band(axes, layers, table.column(column), column, colour, marker)
    axes.axhline(curve.chance, color="black", linestyle=":", label="chance by frequency")
    axes.axhline(curve.tfidf.value, color=RED, linestyle="--", label="TF-IDF")
    published = [(x, y) for x, y in zip(layers, table.column("published"), strict=True) if y]
    if published:
        axes.plot(*zip(*published, strict=True), "x", color="black", label="published")
    axes.set(xlabel="layer", ylabel="accuracy", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)


def _draw_positions(canvas: Any, *, table: Table) -> None:
    axes = canvas.subplots()
    values = np.array([[_value(cell) for cell in row[1:]] for row in table.rows])
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis")
    axes.set_xticks(range(values.shape[1]), table.columns[1:])
    axes.set_yticks(range(len(values)), [str(layer) for layer in table.column("layer")])
    axes.set(xlabel="position", ylabel="layer")
    canvas.colorbar(image, label="accuracy")


def _draw_effect(canvas: Any, *, table: Table, columns: tuple[str, str], what: str) -> None:
    has_sites = "site" in table.columns
    kinds = list(dict.fromkeys(table.column("site"))) if has_sites else [None]
    panels = np.atleast_1d(canvas.subplots(1, len(kinds), sharey=True))
    for axes, kind in zip(panels, kinds, strict=True):
        chosen = [row for row in table.rows if kind is None or row[0] == kind]
        layers = [row[table.columns.index("layer")] for row in chosen]
        for column, colour in zip(columns, (BLUE, GREY), strict=True):
            cells = [row[table.columns.index(column)] for row in chosen]
            _band(axes, layers, cells, column, colour, "o" if colour == BLUE else None)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlabel="layer", title=kind or "")
    panels[0].set_ylabel(what)
    panels[0].legend(frameon=False, fontsize=8)


def _band(
    axes: Any, x: Sequence[Any], cells: Sequence[Cell], name: str, colour: str, marker: Any
) -> None:
    if not all(isinstance(cell, Estimate) for cell in cells):
        return
    found = [cell for cell in cells if isinstance(cell, Estimate)]
    axes.plot(x, [cell.value for cell in found], marker=marker, color=colour, label=name)
    ends = np.array([cell.interval for cell in found]).T
    axes.fill_between(x, *ends, alpha=0.2, color=colour, linewidth=0)


def _value(cell: Cell) -> float:
    return cell.value if isinstance(cell, Estimate) else float("nan")
