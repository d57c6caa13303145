"""Scores on a plane, and how they are drawn: classes of points, and a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from emowatch.colours import LIGHT, colours_of
from emowatch.labels import signs
from emowatch.studies.separation import Separation

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
CONTOURS = (0.25, 0.5)
"""Shares of a class's highest density at which its lines are drawn, outer and inner (paper A)."""
NAMES = 4
"""Of labels, that stand below one panel side by side."""
GRID = 120
"""Points along each side of the plane at which densities are computed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The scores of one layer on a plane."""

    layer: int
    points: Doubles
    """``[texts, 2]``."""
    axes: Doubles
    """``[2, labels]``: what each axis is made of."""
    explained: Doubles
    """``[2]``: share of the variance along each."""
    confusion: Ints
    """``[true, predicted]`` counts."""
    apart: Separation


def shape_of(panels: int) -> tuple[int, int]:
    """Choose rows and columns, so that few places stay empty: two in a row, or three of more."""
    columns = min(panels, 2 if panels in (2, 4) else 3)
    return -(-panels // columns), columns


def draw_planes(
    canvas: Any, *, layouts: Sequence[Layout], labels: Ints, names: Sequence[str]
) -> None:
    """Draw a panel for each layout; a label's sign stands where it is densest."""
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    short, halo = signs(names), [withStroke(linewidth=2, foreground="white")]
    rows, columns = shape_of(len(layouts))
    panels = np.atleast_1d(canvas.subplots(rows, columns)).ravel()
    colours = colours_of(names, LIGHT)
    for axes in panels[len(layouts) :]:
        axes.set_axis_off()
    for axes, layout in zip(panels, layouts, strict=False):
        grid = _grid(layout.points)
        for place, name in enumerate(names):
            mine = layout.points[labels == place]
            if not len(mine):
                continue
            axes.plot(*mine.T, ".", color=colours[name], alpha=0.25, markersize=2)
            density = density_of(mine, grid)
            if density is not None:
                levels = [share * density.max() for share in CONTOURS]
                lines = [0.7, 1.6]
                axes.contour(*grid, density, levels, colors=[colours[name]], linewidths=lines)
            peak = mine.mean(0)
            if density is not None:
                peak = np.array([axis.ravel()[density.argmax()] for axis in grid])
            sign = {"color": colours[name], "weight": "bold", "path_effects": halo}
            axes.text(*peak, short[name], fontsize=9, ha="center", va="center", **sign)
        shown = ", ".join(f"{share:.0%}" for share in layout.explained)
        axes.set_title(f"layer {layout.layer} (axes {shown})", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    canvas.legend(
        [Line2D([], [], color=colours[name]) for name in names],
        [f"{short[name]}  {name}" for name in names],
        loc="outside lower center",
        ncols=min(len(names), NAMES * columns),
        frameon=False,
        fontsize=8,
    )


def density_of(points: Doubles, grid: tuple[Doubles, Doubles]) -> Doubles | None:
    """Estimate the density of ``[points, 2]`` on a grid by Gaussian kernels (Scott's rule).

    Returns:
        ``[GRID, GRID]``; `None` where the points lie on a line, and have no density, or so close
        together that it falls between the points of the grid.
    """
    if len(points) < 3:
        return None
    narrow, wide = np.linalg.eigvalsh(np.cov(points.T))
    if narrow <= 1e-9 * wide:
        return None
    kernels = gaussian_kde(points.T)
    found: Doubles = kernels(np.stack([axis.ravel() for axis in grid]))
    return found.reshape(grid[0].shape) if found.max() > 0 else None


def _grid(points: Doubles) -> tuple[Doubles, Doubles]:
    low, high = points.min(0), points.max(0)
    margin = 0.3 * (high - low) + 1e-6  # kernels reach past the points
    x, y = (np.linspace(low[n] - margin[n], high[n] + margin[n], GRID) for n in range(2))
    across, up = np.meshgrid(x, y)
    return across, up


def draw_matrix(canvas: Any, *, counts: Ints, names: Sequence[str]) -> None:
    """Draw a confusion matrix as shares of its rows."""
    axes = canvas.subplots()
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*shares.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{shares[row, column]:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right")
    axes.set_yticks(places, names)
    axes.set(xlabel="predicted", ylabel="true")
