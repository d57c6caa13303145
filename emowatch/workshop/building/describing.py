"""What a corpus holds: labels by provenance (Table 1 of arXiv 2510.04064), lengths (Figure 2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emowatch.errors import UsageError
from emowatch.text import clean_line
from emowatch.workshop.building.rows import PROVENANCES, CorpusRow

BINS = (1, 4, 7, 11, 16, 21, 31, 51, 101)
"""Least words of each bin of a histogram; the last has no end."""
BLOCKS = " ▁▂▃▄▅▆▇█"
NAME_WIDTH = 16


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many words the texts of a label have."""

    n: int
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    histogram: tuple[int, ...]
    """Texts in each of `BINS`."""


@dataclass(frozen=True, slots=True)
class CorpusCard:
    """The figures of a corpus."""

    rows: int
    parents: int
    table: Mapping[str, Mapping[str, int]]
    """Texts by label and provenance."""
    words: Mapping[str, Lengths]
    """By label; white space parts words."""
    sources: Mapping[str, int]
    """Texts by the file that their natural text came from."""
    models: Mapping[str, int]
    """Texts by the model that labelled or wrote them."""
    judges: Mapping[str, int]
    """Written texts by the model that checked them."""
    templates: Mapping[str, int]
    """Texts by the template of the prompt that did."""

    def as_object(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {**asdict(self), "bins": list(BINS)}


def describe(rows: Sequence[CorpusRow]) -> CorpusCard:
    """Count what a corpus holds."""
    labels = sorted({row.label for row in rows})
    cells = Counter((row.label, row.provenance) for row in rows)
    return CorpusCard(
        rows=len(rows),
        parents=len({row.parent for row in rows}),
        table={label: {p: cells[label, p] for p in PROVENANCES} for label in labels},
        words={
            label: _lengths([len(row.text.split()) for row in rows if row.label == label])
            for label in labels
        },
        sources=_counted(row.source for row in rows),
        models=_counted(row.model for row in rows),
        judges=_counted(row.judge for row in rows if row.provenance != "natural"),
        templates=_counted(row.template for row in rows),
    )


def _counted(values: Any) -> dict[str, int]:
    return dict(Counter(value or "not known" for value in values).most_common())


def _lengths(words: Sequence[int]) -> Lengths:
    bins = np.histogram(words, bins=[*BINS, np.inf])[0]
    p5, p25, median, p75, p95 = np.quantile(words, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()
    return Lengths(len(words), p5, p25, median, p75, p95, tuple(bins.tolist()))


def render(card: CorpusCard, name: str) -> str:
    """Lay the figures out in tables of at most 80 columns."""
    lines = [f"{name}: {card.rows:,} texts of {card.parents:,} parents", ""]
    names = {label: clean_line(label, NAME_WIDTH) for label in card.table}
    wide = max(5, *map(len, names.values()))
    lines.append(f"  {'label':<{wide}}" + "".join(f"{p:>11}" for p in (*PROVENANCES, "total")))
    for label, row in card.table.items():
        cells = [*row.values(), sum(row.values())]
        lines.append(f"  {names[label]:<{wide}}" + "".join(f"{n:>11,}" for n in cells))
    sums = [sum(row[p] for row in card.table.values()) for p in PROVENANCES]
    lines.append(f"  {'sum':<{wide}}" + "".join(f"{n:>11,}" for n in (*sums, card.rows)))
    lines += [
        "",
        f"  {'words':<{wide}}  median  middle half  5 to 95 %  share of texts by words",
    ]
    for label, of in card.words.items():
        middle, most = f"{of.p25:.0f}-{of.p75:.0f}", f"{of.p5:.0f}-{of.p95:.0f}"
        lines.append(
            f"  {names[label]:<{wide}}  {of.median:>6.0f}  {middle:>11}  {most:>9}  {_bars(of)}"
        )
    ends = " ".join(f"{low}+" for low in BINS)
    lines += [f"  bars: {ends} words, full at the label's most", ""]
    for title, found in (
        ("source", card.sources),
        ("model", card.models),
        ("judge", card.judges),
        ("template", card.templates),
    ):
        if found:
            told = ", ".join(f"{clean_line(one, 60)} ({n:,})" for one, n in found.items())
            lines.append(f"  {title:<10}{told}")
    return "\n".join(lines)


def _bars(lengths: Lengths) -> str:
    most = max(lengths.histogram)
    return "".join(BLOCKS[-(-n * (len(BLOCKS) - 1) // most)] for n in lengths.histogram)


def draw_lengths(rows: Sequence[CorpusRow], path: Path) -> None:
    """Draw how many words the texts of each label have, with the medians, as SVG, PNG or PDF.

    Raises:
        UsageError: without matplotlib, or if the file cannot be written.
    """
    from emowatch.workshop.figures import require_matplotlib  # the room of banks: torch

    require_matplotlib()
    import matplotlib.figure  # no pyplot: no global state, no display

    labels = sorted({row.label for row in rows})
    words = [[len(row.text.split()) for row in rows if row.label == label] for label in labels]
    figure = matplotlib.figure.Figure(figsize=(7, 1 + 0.5 * len(labels)), layout="constrained")
    axes = figure.subplots()
    end = float(np.quantile(np.concatenate(words), 0.99))
    shown = [[min(n, end) for n in of] for of in words]
    places = list(range(len(labels)))
    axes.violinplot(shown, places, orientation="horizontal", widths=0.8, showextrema=False)
    for place, of in zip(places, words, strict=True):
        axes.plot(np.median(of), place, marker="|", markersize=14, color="black")
        axes.annotate(
            f"{np.median(of):.0f}", (np.median(of), place), (6, 6), textcoords="offset points"
        )
    named = [
        f"{clean_line(label, NAME_WIDTH)} ({len(of):,})"
        for label, of in zip(labels, words, strict=True)
    ]
    axes.set_yticks(places, named)
    axes.invert_yaxis()
    axes.set(xlabel=f"words; bars mark medians, longer texts count as {end:.0f}", xlim=(0, end))
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"Could not draw to {clean_line(str(path))!r}: {clean_line(why, 120)}. Name a .svg, "
            ".png or .pdf file with --plot."
        ) from error
