"""All that a session left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emowatch.errors import TraceError
from emowatch.records import (
    Alarm,
    Scores,
    Segment,
    Session,
    SteeringChange,
    TokenScore,
    Turn,
)
from emowatch.text import clean_line
from emowatch.trace.lines import DAMAGE, alarm_of, floats, session_of, steering_of, turn_of
from emowatch.trace.tokens import TokenTable


class Trace:
    """All that was scored between attach and detach."""

    def __init__(self, session: Session, layers: Sequence[tuple[int, ...]] | None = None) -> None:
        """Start empty; `layers` per bank where the scores of all layers are kept."""
        kept = layers or [()] * len(session.banks)
        self.session = session
        self.by_bank = {
            bank.name: TokenTable(bank, of) for bank, of in zip(session.banks, kept, strict=True)
        }
        self.alarms: list[Alarm] = []
        self.steerings: list[SteeringChange] = []
        """Where what is added to the residual changed, in order."""
        self.turns: list[Turn] = []
        self.complete = False
        """Whether the session was closed; a trace cut off by a crash is not."""

    def __repr__(self) -> str:
        """Tell what it holds, without any of it."""
        tokens = ", ".join(f"{name}: {len(table)}" for name, table in self.by_bank.items())
        return f"Trace({self.session.model}; tokens {tokens}; turns {len(self.turns)})"

    @property
    def tokens(self) -> TokenTable:
        """The token scores of the first bank."""
        return next(iter(self.by_bank.values()))

    def reply(self, turn: int = -1, sequence: int = 0, bank: str | None = None) -> list[TokenScore]:
        """List the scores of one reply in order of offset; ``turn=-1`` is the last one."""
        table = self.tokens if bank is None else self.by_bank[bank]
        if turn < 0:
            turn += table.turns
        return [
            score
            for score in table
            if score.turn == turn and score.sequence == sequence and score.offset is not None
        ]

    def mean(
        self,
        segment: Segment = "reply",
        turn: int = -1,
        sequence: int = 0,
        bank: str | None = None,
    ) -> Scores | None:
        """Average the scores of one segment in one turn; ``turn=-1`` is the last one.

        Of ``reply`` and ``thinking`` only what the model said in that turn counts; ``user`` and
        ``system`` are all such messages of the turn's prompt. `None` where there is no such token.
        """
        table = self.tokens if bank is None else self.by_bank[bank]
        if turn < 0:
            turn += table.turns
        found = table.mean(segment, turn, sequence)
        return None if found is None else Scores(table.bank.labels, found)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace written as JSON lines; a torn last line is left out.

        Raises:
            TraceError: if the file is no trace, or holds a line that is not of its schema.
        """
        shown = clean_line(str(path))
        try:
            with Path(path).open(encoding="utf-8") as lines:
                return _read(lines, shown)
        except OSError as error:
            raise TraceError(f"Could not read the trace {shown!r}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise TraceError(f"Could not read the trace {shown!r}: it is not UTF-8.") from error


def _read(lines: Iterator[str], shown: str) -> Trace:
    trace: Trace | None = None
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break  # the writer was cut off in mid-line
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
            if trace is None:
                trace = Trace(session_of(row))
            else:
                _take(trace, row)
        except DAMAGE as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            if isinstance(error, json.JSONDecodeError):
                why = "it is no JSON"
            raise TraceError(
                f"Could not read line {number} of {shown!r}: {clean_line(why, 120)}. It is not a "
                "trace of emowatch, or it was changed."
            ) from error
    if trace is None:
        raise TraceError(f"Could not read the trace {shown!r}: it is empty.")
    return trace


def _take(trace: Trace, row: dict[str, Any]) -> None:
    kind = row.pop("type")
    if kind == "token":
        table = trace.by_bank[trace.session.banks[row["bank"]].name]
        labels = table.bank.labels
        by_layer = None
        if not len(table):
            table.layers = tuple(row.get("layers", ()))
        if table.layers:
            by_layer = floats(row["layer_scores"], len(table.layers), len(labels))
        table.append(
            turn=row["turn"],
            sequence=row["sequence"],
            position=row["position"],
            offset=row["offset"],
            segment=row["segment"],
            scores=floats(row["scores"], len(labels)),
            layer_scores=by_layer,
            distance=None if row.get("distance") is None else float(row["distance"]),
        )
    elif kind == "alarm":
        trace.alarms.append(alarm_of(row))
    elif kind == "steering":
        trace.steerings.append(steering_of(row))
    elif kind == "turn":
        trace.turns.append(turn_of(row, trace.session))
    elif kind == "end":
        trace.complete = True
    else:
        raise ValueError(
            f"there are no {clean_line(repr(kind), 30)} lines, only token, alarm, steering, turn "
            "and end"
        )
