"""What a session left behind: token scores, alarms, steering, turns; in memory or as JSON lines.

A trace needs no model and no torch. `Trace.load` reads what the plugin ``jsonl-log`` wrote.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, overload

import numpy as np

from emowatch.errors import TraceError
from emowatch.labels import check_labels
from emowatch.records import (
    SEGMENTS,
    Alarm,
    BankInfo,
    Drift,
    Floats,
    Level,
    Mode,
    Scores,
    Segment,
    Session,
    SteeringChange,
    TokenScore,
    Turn,
)
from emowatch.text import clean_line

SCHEMA = 1
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a line of another shape can raise."""


class TokenTable(Sequence[TokenScore]):
    """The token scores of one bank, stored in columns: about 45 bytes a token for 7 labels."""

    def __init__(self, bank: BankInfo, layers: tuple[int, ...] = ()) -> None:
        """Start empty; `layers` are those of `layer_scores`, where they are kept."""
        self.bank = bank
        self.layers = layers
        self._turn, self._position, self._offset = array("i"), array("i"), array("i")
        self._sequence, self._segment = array("h"), array("b")
        self._scores, self._layer_scores = array("f"), array("f")

    def append(
        self,
        *,
        turn: int,
        sequence: int,
        position: int,
        offset: int | None,
        segment: Segment,
        scores: Floats,
        layer_scores: Floats | None = None,
    ) -> None:
        """Add one token; `scores` ``[labels]``, `layer_scores` ``[layers, labels]``."""
        self._turn.append(turn)
        self._sequence.append(sequence)
        self._position.append(position)
        self._offset.append(-1 if offset is None else offset)
        self._segment.append(SEGMENTS.index(segment))
        self._scores.frombytes(np.asarray(scores, np.float32).tobytes())
        if layer_scores is not None:
            self._layer_scores.frombytes(np.asarray(layer_scores, np.float32).tobytes())

    def add(self, score: TokenScore) -> None:
        """Add the record of one token, as of another table of the same bank."""
        self.append(
            turn=score.turn,
            sequence=score.sequence,
            position=score.position,
            offset=score.offset,
            segment=score.segment,
            scores=score.scores.array,
            layer_scores=score.layer_scores if self.layers else None,
        )

    def __len__(self) -> int:
        """Count the tokens."""
        return len(self._turn)

    @overload
    def __getitem__(self, index: int) -> TokenScore: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenScore]: ...
    def __getitem__(self, index: int | slice) -> TokenScore | list[TokenScore]:
        """Build the record of one token, or of several."""
        if isinstance(index, slice):
            return [self._record(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"token {index} of a trace with {len(self)} tokens")
        return self._record(index % len(self))

    @property
    def turns(self) -> int:
        """Turns so far, the running one counted."""
        return max(self._turn, default=-1) + 1

    def array(self) -> Floats:
        """Copy all scores ``[tokens, labels]``."""
        return np.array(self._scores, dtype=np.float32).reshape(len(self), len(self.bank.labels))

    def offsets(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """Copy all offsets ``[tokens]``; -1 before the last prompt token."""
        return np.array(self._offset, dtype=np.int32)

    def mean(
        self, segment: Segment, turn: int, sequence: int = 0, *, start: int = 0
    ) -> Floats | None:
        """Average ``[labels]`` over one segment of one row in a turn; `None` where it has none.

        Of ``reply`` and ``thinking`` only what the model said in that turn counts, and not the
        earlier messages that the prompt repeats. `start` is the place to look from.
        """
        if segment not in SEGMENTS:
            raise ValueError(f"there is no segment {segment!r}; there are: {', '.join(SEGMENTS)}")
        width = len(self.bank.labels)
        chosen = (
            (np.array(self._turn[start:], dtype=np.int32) == turn)
            & (np.array(self._sequence[start:], dtype=np.int16) == sequence)
            & (np.array(self._segment[start:], dtype=np.int8) == SEGMENTS.index(segment))
        )
        if segment in ("reply", "thinking"):
            chosen &= np.array(self._offset[start:], dtype=np.int32) >= 0
        if not chosen.any():
            return None
        scores = np.array(self._scores[start * width :], dtype=np.float32).reshape(-1, width)
        with np.errstate(invalid="ignore"):  # what is no number makes a mean that is none
            mean: Floats = scores[chosen].mean(0)
        return mean

    def _record(self, i: int) -> TokenScore:
        width = len(self.bank.labels)
        scores = np.array(self._scores[i * width : (i + 1) * width], dtype=np.float32)
        scores.flags.writeable = False
        layer_scores = None
        if self._layer_scores:
            size = width * len(self.layers)
            flat = self._layer_scores[i * size : (i + 1) * size]
            layer_scores = np.array(flat, dtype=np.float32).reshape(len(self.layers), width)
            layer_scores.flags.writeable = False
        return TokenScore(
            bank=self.bank.name,
            turn=self._turn[i],
            sequence=self._sequence[i],
            position=self._position[i],
            offset=None if self._offset[i] < 0 else self._offset[i],
            segment=SEGMENTS[self._segment[i]],
            scores=Scores(self.bank.labels, scores),
            layers=self.layers if layer_scores is not None else (),
            layer_scores=layer_scores,
        )


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
                trace = _start(row)
            else:
                _take(trace, row)
        except _DAMAGE as error:
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


def _start(row: Mapping[str, Any]) -> Trace:
    if row["type"] == "session" and isinstance(row["schema"], int) and row["schema"] > SCHEMA:
        raise TraceError(
            f"Could not read the trace: it is of schema {row['schema']}, and this version of "
            f"emowatch reads {SCHEMA}. Upgrade emowatch."
        )
    if row["type"] != "session" or row["schema"] != SCHEMA:
        raise ValueError(f"the first line must be a session of schema {SCHEMA}")
    banks = tuple(_bank(bank) for bank in row["banks"])
    if not banks:
        raise ValueError("a session has one bank or more")
    session = Session(
        id=row["id"],
        model=row["model"],
        banks=banks,
        n_layers=row["n_layers"],
        d_model=row["d_model"],
        seed=row["seed"],
        certificate=row["certificate"],
    )
    return Trace(session)


def _bank(row: Mapping[str, Any]) -> BankInfo:
    known = {**row, "labels": check_labels(row["labels"]), "layers": tuple(row["layers"])}
    if row.get("offsets") is not None:
        first, last = row["offsets"]
        known["offsets"] = int(first), int(last)
    known["at_chance"] = tuple((int(first), int(last)) for first, last in row.get("at_chance", ()))
    return BankInfo(**known)


def _take(trace: Trace, row: dict[str, Any]) -> None:
    kind = row.pop("type")
    if kind == "token":
        table = trace.by_bank[trace.session.banks[row["bank"]].name]
        labels = table.bank.labels
        by_layer = None
        if not len(table):
            table.layers = tuple(row.get("layers", ()))
        if table.layers:
            by_layer = _floats(row["layer_scores"], len(table.layers), len(labels))
        table.append(
            turn=row["turn"],
            sequence=row["sequence"],
            position=row["position"],
            offset=row["offset"],
            segment=row["segment"],
            scores=_floats(row["scores"], len(labels)),
            layer_scores=by_layer,
        )
    elif kind == "alarm":
        trace.alarms.append(_alarm(row))
    elif kind == "steering":
        trace.steerings.append(_steering(row))
    elif kind == "turn":
        known = {bank.name: bank.labels for bank in trace.session.banks}
        means = {
            name: Scores(known[name], _floats(values, len(known[name])))
            for name, values in row.pop("mean_scores").items()
        }
        ids = tuple(row.pop("token_ids", ()))
        row.pop("text_hmac", None)
        row["pieces"] = tuple(map(str, row.get("pieces", ())))
        trace.turns.append(Turn(**{"text": ""} | row | {"token_ids": ids, "mean_scores": means}))
    elif kind == "end":
        trace.complete = True
    else:
        raise ValueError(
            f"there are no {clean_line(repr(kind), 30)} lines, only token, alarm, steering, turn "
            "and end"
        )


def _alarm(row: dict[str, Any]) -> Alarm:
    """Make an alarm; screens show its values as they are."""
    row["actions"] = tuple(map(str, row.get("actions", ())))
    row["score"], row["threshold"] = float(row["score"]), float(row["threshold"])
    if (drift := row.get("drift")) is not None:
        row["drift"] = Drift(
            segment=_one_of(drift["segment"], SEGMENTS),
            direction=_one_of(drift["direction"], ("up", "down")),
            size=float(drift["size"]),
            turn=int(drift["turn"]),
            place=int(drift["place"]),
            tokens=int(drift["tokens"]),
            chart=str(drift["chart"]),
            p=float(drift["p"]),
        )
    return Alarm(**row | {"level": _one_of(row["level"], get_args(Level))})


def _steering(row: dict[str, Any]) -> SteeringChange:
    """Make a change of steering; screens show its values as they are."""
    for name in ("strength", "applied", "total"):
        row[name] = float(row[name])
    if "mode" in row:
        row["mode"] = _one_of(row["mode"], get_args(Mode))
    return SteeringChange(**row)


def _one_of(value: Any, known: Sequence[str]) -> Any:
    if value not in known:
        raise ValueError(f"there is no {clean_line(repr(value), 30)}, only {', '.join(known)}")
    return value


def _floats(values: Any, *shape: int) -> Floats:
    """Make an array of scores; null stands for what is no number."""
    found = np.array(values, dtype=np.float32)
    if found.shape != shape:
        raise ValueError(f"scores of shape {found.shape} where {shape} were expected")
    return found
