"""Lay a trace out as one self-contained HTML page: no script, and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from emowatch import __version__
from emowatch.colours import LIGHT, colours_of
from emowatch.drift.turns import movements, summarise
from emowatch.records import TokenScore, Turn
from emowatch.text import clean, clean_line
from emowatch.trace import TokenTable, Trace

TEMPLATES = Path(__file__).parent
WIDTH, HEIGHT = 640, 120
"""Of a figure of traces, in user units."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """One token of a reply."""

    text: str
    """What it says where the trace holds that, else nothing."""
    label: str
    shade: int
    """Percent of its colour."""
    told: str


def render_page(trace: Trace, *, bank: str | None = None) -> str:
    """Write the page.

    Text is shown where the trace holds it (``content=full``), token by token on a ground in the
    colour of its dominant emotion, stronger where the score is higher; else a cell stands for each
    token.

    Args:
        trace: a session.
        bank: whose scores colour the text; the first bank's, where none is named.

    Raises:
        KeyError: for a bank that is not there.
    """
    table = trace.tokens if bank is None else trace.by_bank[bank]
    colours = colours_of(table.bank.labels, LIGHT)
    summaries = summarise(trace, table.bank.name)
    rows = sorted({one.sequence for one in summaries})
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,  # every word of it is somebody's
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = lambda value: clean_line(str(value))
    return environment.get_template("page.html.jinja").render(
        session=trace.session,
        complete=trace.complete,
        version=__version__,
        bank=table.bank,
        colours=colours,
        replies=[_reply(trace, table, turn, colours) for turn in _turns(trace, table)],
        summaries=summaries,
        conversations=[
            (row, movements([one for one in summaries if one.sequence == row])) for row in rows
        ],
        width=WIDTH,
        height=HEIGHT,
    )


def _turns(trace: Trace, table: TokenTable) -> list[tuple[int, int, Turn | None]]:
    """List the replies; one that never ended has no record of its end."""
    ended = {(turn.index, turn.sequence): turn for turn in trace.turns}
    begun = dict.fromkeys((s.turn, s.sequence) for s in table if s.offset is not None)
    return [(*key, ended.get(key)) for key in begun]


def _reply(
    trace: Trace,
    table: TokenTable,
    which: tuple[int, int, Turn | None],
    colours: Mapping[str, str],
) -> dict[str, Any]:
    turn, sequence, ended = which
    scores = [s for s in table if (s.turn, s.sequence) == (turn, sequence) and s.offset is not None]
    pieces = ended.pieces if ended is not None else ()
    here = (turn, sequence)
    return {
        "turn": turn,
        "sequence": sequence,
        "ended": ended,
        "cells": [_cell(score, pieces) for score in scores],
        "has_text": any(pieces),
        "lines": _lines(scores, colours),
        "alarms": [a for a in trace.alarms if (a.turn, a.sequence) == here],
        "steerings": [c for c in trace.steerings if (c.turn, c.sequence) == here],
    }


def _cell(score: TokenScore, pieces: Sequence[str]) -> _Cell:
    assert score.offset is not None
    value = score.scores[score.dominant]
    ranked = sorted(score.scores.items(), key=lambda pair: -pair[1])[:3]
    told = ", ".join(f"{clean_line(label)} {number:.2f}" for label, number in ranked)
    return _Cell(
        text=clean(pieces[score.offset]) if score.offset < len(pieces) else "",
        label=score.dominant,
        shade=round(100 * min(max(value, 0.0), 1.0)) if value == value else 0,
        told=f"offset {score.offset}: {told}",
    )


def _lines(scores: Sequence[TokenScore], colours: Mapping[str, str]) -> list[dict[str, str]]:
    """Give a path for each label, from the first token on the left to the last on the right."""
    step = WIDTH / max(1, len(scores) - 1)
    found = []
    for label, colour in colours.items():
        points, pen = [], "M"
        for place, score in enumerate(scores):
            value = score.scores[label]
            if not 0 <= value <= 1:  # no score: a gap
                pen = "M"
                continue
            points.append(f"{pen}{place * step:.1f} {HEIGHT * (1 - value):.1f}")
            pen = "L"
        found.append({"label": label, "colour": colour, "path": " ".join(points)})
    return found
