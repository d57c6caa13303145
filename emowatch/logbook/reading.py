"""Ask a log for turns: the newest, those of a thread, those that say or feel something."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from emowatch.errors import LogError, UsageError
from emowatch.text import clean_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which turns are wanted; what is left out does not matter."""

    count: int = 3
    """At most so many, the newest; 0 for all."""
    thread: str | None = None
    newest_thread: bool = False
    model: str | None = None
    query: str | None = None
    """Words of the reply, in the language of SQLite's full-text search."""
    after: str | None = None
    """Id of a turn; only later ones."""
    minima: Mapping[str, float] = field(default_factory=dict)
    """For each label, what its score reached at some token of the reply."""
    with_alarms: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTurn:
    """One reply as the log holds it."""

    id: str
    thread_id: str
    turn: int
    sequence: int
    model: str
    datetime_utc: str
    complete: bool
    """False where its end was never written: the process was killed, or still speaks."""
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    duration_ms: int | None
    options: Mapping[str, Any]
    response: str | None
    means: Mapping[str, Mapping[str, float | None]]
    """Mean scores of the reply by probe and label."""
    alarms: tuple[Mapping[str, Any], ...]
    steerings: tuple[Mapping[str, Any], ...]
    """For each plugin, direction, layer and mode the most that was done; of a shadow, asked for."""


_COLUMNS = (
    "number, id, thread_id, turn, sequence, model, datetime_utc, complete, finish_reason, "
    "input_tokens, output_tokens, duration_ms, options_json, response"
)


def read_turns(connection: sqlite3.Connection, asked: Asked) -> Iterator[LoggedTurn]:
    """Give the turns that were asked for, oldest first.

    Raises:
        UsageError: for a label that no logged probe has, or a query that cannot be read.
        LogError: if the file is damaged.
    """
    _check_labels(connection, asked.minima)
    if asked.query is not None:
        _check_query(connection, asked.query)
    where, values = _conditions(asked)
    newest = f"SELECT {_COLUMNS} FROM turns {where} ORDER BY number DESC"
    if asked.count:
        newest += " LIMIT ?"
        values.append(asked.count)
    try:
        rows = connection.execute(
            f"SELECT * FROM ({newest}) ORDER BY number",  # its parts are ours; values are bound
            values,
        ).fetchall()
        for row in rows:
            yield _turn(connection, row)
    except sqlite3.DatabaseError as error:
        raise LogError(f"Could not read the log: {clean_line(str(error))}.") from error


def _check_query(connection: sqlite3.Connection, query: str) -> None:
    try:
        connection.execute("SELECT 1 FROM turns_fts WHERE turns_fts MATCH ? LIMIT 1", [query])
    except sqlite3.OperationalError as error:
        raise UsageError(
            f"Could not search for {clean_line(query)!r}: {clean_line(str(error))}. "
            "Quote words that hold signs, as in -q '\"well-being\"'."
        ) from error


def _conditions(asked: Asked) -> tuple[str, list[Any]]:
    parts: list[str] = []
    values: list[Any] = []
    if asked.newest_thread:
        parts.append("thread_id = (SELECT max(id) FROM threads)")
    if asked.thread is not None:
        parts.append("thread_id = ?")
        values.append(asked.thread)
    if asked.model is not None:
        parts.append("model = ?")
        values.append(asked.model)
    if asked.after is not None:
        parts.append("id > ?")
        values.append(asked.after)
    if asked.query is not None:
        parts.append("number IN (SELECT rowid FROM turns_fts WHERE turns_fts MATCH ?)")
        values.append(asked.query)
    for label, least in asked.minima.items():
        parts.append(
            "EXISTS (SELECT 1 FROM scores WHERE scores.turn = turns.number "
            "AND scores.offset IS NOT NULL AND label = ? AND score >= ?)"
        )
        values += [label, least]
    if asked.with_alarms:
        parts.append("EXISTS (SELECT 1 FROM alarms WHERE alarms.turn = turns.number)")
    return f"WHERE {' AND '.join(parts)}" if parts else "", values


def _check_labels(connection: sqlite3.Connection, minima: Mapping[str, float]) -> None:
    known = {
        label
        for (labels,) in connection.execute("SELECT labels_json FROM probes")
        for label in json.loads(labels)
    }
    for label in minima:
        if label not in known:
            raise UsageError(
                f"Could not ask for {clean_line(label)!r}: no logged probe has that label; there "
                f"are: {clean_line(', '.join(sorted(known))) or 'none yet'}."
            )


def _turn(connection: sqlite3.Connection, row: tuple[Any, ...]) -> LoggedTurn:
    number = row[0]
    means: dict[str, dict[str, float | None]] = {}
    for probe, label, score in connection.execute(
        "SELECT name, label, means.score FROM means JOIN probes ON probes.number = probe "
        "WHERE turn = ? ORDER BY probe",
        (number,),
    ):
        means.setdefault(probe, {})[label] = score
    alarms = connection.execute(
        "SELECT rule, label, level, score, threshold, offset, drift_json FROM alarms "
        "WHERE turn = ? ORDER BY number",
        (number,),
    )
    names = ("rule", "label", "level", "score", "threshold", "offset", "drift")
    return LoggedTurn(
        id=row[1],
        thread_id=row[2],
        turn=row[3],
        sequence=row[4],
        model=row[5],
        datetime_utc=row[6],
        complete=bool(row[7]),
        finish_reason=row[8],
        input_tokens=row[9],
        output_tokens=row[10],
        duration_ms=row[11],
        options=json.loads(row[12] or "{}"),
        response=row[13],
        means=means,
        alarms=tuple(
            dict(zip(names, (*alarm, json.loads(drift or "null")), strict=True))
            for *alarm, drift in alarms
        ),
        steerings=tuple(
            {
                "plugin": plugin,
                "direction": direction,
                "layer": layer,
                "mode": mode,
                "shadow": bool(shadow),
                "most": most,
            }
            for plugin, direction, layer, mode, shadow, most in connection.execute(
                "SELECT plugin, direction, layer, mode, shadow, "
                "max(abs(CASE WHEN shadow THEN strength ELSE applied END)) FROM steerings "
                "WHERE turn = ? GROUP BY plugin, direction, layer, mode, shadow",
                (number,),
            )
        ),
    )
