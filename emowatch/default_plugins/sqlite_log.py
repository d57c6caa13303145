"""Log sessions to one SQLite file, as many as there are; `emowatch logs` reads it.

Scores are written, and by default neither text nor token ids. Knows nothing of models.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ulid import ULID

from emowatch import hookimpl
from emowatch.default_plugins.contents import (
    check_content,
    installation_key,
    keyed_hash,
    listed,
    versions,
)
from emowatch.logbook import connect, default_path
from emowatch.records import Alarm, BankInfo, Session, SteeringChange, TokenScore, Turn

COMMIT_S = 0.25
"""Longest time for which scores wait to be committed."""
_TOKEN = "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)"
_MEAN = "INSERT OR REPLACE INTO means VALUES (?, ?, ?, ?)"


@dataclass(slots=True)
class _Open:
    """A turn that has begun."""

    number: int
    started_s: float


class SqliteLog:
    """Logs sessions as threads of turns.

    What it has heard of is committed at the end of a turn, with an alarm, and with the first token
    after a quarter of a second. A turn whose end was never written stays marked as incomplete.
    """

    can_wait = True

    def __init__(
        self, path: str | Path | None = None, content: str = "none", durable: str | bool = False
    ) -> None:
        """Open the file or make it, so that what cannot be written is known at once.

        Args:
            path: the database; by default ``logs.db`` in the folder of the user's data.
            content: ``none`` keeps text out, ``hash`` writes a keyed hash of each reply instead,
                ``full`` writes its text, which can be searched then.
            durable: let each commit survive a power cut too, not only a crash.

        Raises:
            ValueError: for an unknown `content` or `durable`.
            LogError: for a file that cannot be made or is something else.
        """
        self.content = check_content("sqlite-log", content)
        self._key = installation_key() if content == "hash" else b""
        if str(durable).lower() not in ("true", "false"):
            raise ValueError(
                f"The option 'durable' of sqlite-log must be true or false, got {durable!r}."
            )
        self._durable = str(durable).lower() == "true"
        self.path = default_path() if path is None else Path(path).expanduser()
        connect(self.path, make=True, durable=self._durable).close()
        self._database: sqlite3.Connection | None = None
        self._thread = ""
        self._model = ""
        self._probes: dict[str, int] = {}
        """Number of each bank in the table of probes."""
        self._open: dict[tuple[int, int], _Open] = {}
        self._tokens: list[tuple[int, int, int, int | None, str, str, float | None]] = []
        """Rows that wait to be written."""
        self._committed_s = 0.0

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Begin a thread."""
        self._database = connect(self.path, make=True, durable=self._durable)
        self._thread, self._model = str(ULID()), _storable(session.model)
        self._open.clear()
        self._begin()
        self._probes = {bank.name: self._probe(bank) for bank in session.banks}
        self._run(
            "INSERT INTO threads VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?)",
            self._thread,
            _storable(session.id),
            self._model,
            _now(),
            _within_64_bits(session.seed),
            self.content,
            json.dumps(dict(session.certificate), default=str),
            json.dumps(versions()),
        )
        self._commit()

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Keep the scores of one token until they are committed."""
        self._tokens.append(
            (
                self._turn(score.turn, score.sequence).number,
                score.position,
                self._probes[score.bank],
                score.offset,
                score.segment,
                listed(score.scores.array.tolist()),
                score.distance,
            )
        )
        if time.monotonic() - self._committed_s >= COMMIT_S:
            self._write_scores()

    @hookimpl
    def alarm_raised(self, alarm: Alarm) -> None:
        """Write an alarm, and what led to it."""
        turn = self._turn(alarm.turn, alarm.sequence).number
        self._begin()
        self._run(
            "INSERT INTO alarms VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            turn,
            self._probes.get(alarm.bank),
            alarm.offset,
            _storable(alarm.rule),
            _storable(alarm.label),
            alarm.level,
            float(alarm.score),
            float(alarm.threshold),
            _storable("+".join(alarm.actions)),
            None if alarm.drift is None else json.dumps(alarm.drift.fields()),
        )
        self._write_scores()

    @hookimpl
    def steering_changed(self, change: SteeringChange) -> None:
        """Write what is done to the residual from here on."""
        turn = self._turn(change.turn, change.sequence).number
        self._run(
            "INSERT INTO steerings VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            turn,
            change.offset,
            _storable(change.plugin),
            _storable(change.direction),
            change.layer,
            change.mode,
            change.strength,
            change.applied,
            change.total,
            change.shadow,
            change.ended,
        )

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Write how a reply ended, and as much of it as `content` allows."""
        opened = self._turn(turn.index, turn.sequence)
        text = _storable(turn.text)
        self._begin()
        means = [
            (opened.number, self._probes[bank], label, value)
            for bank, scores in turn.mean_scores.items()
            for label, value in scores.items()
        ]
        self._try(self._connected.executemany, _MEAN, means)
        self._run(
            "UPDATE turns SET complete = 1, finish_reason = ?, input_tokens = ?, "
            "output_tokens = ?, duration_ms = ?, options_json = ?, response = ?, "
            "response_hmac = ? WHERE number = ?",
            turn.finish_reason,
            turn.prompt_tokens,
            turn.reply_tokens,
            round(1000 * (time.monotonic() - opened.started_s)),
            json.dumps(dict(turn.settings), default=str),
            text if self.content == "full" else None,
            keyed_hash(self._key, turn.text) if self.content == "hash" else None,
            opened.number,
        )
        self._write_scores()
        del self._open[turn.index, turn.sequence]

    @hookimpl
    def session_finished(self) -> None:
        """End the thread and close the file."""
        if self._database is None:
            return
        try:
            self._begin()
            self._run("UPDATE threads SET ended_utc = ? WHERE id = ?", _now(), self._thread)
            self._write_scores()
        finally:
            self._database.close()
            self._database = None

    @property
    def _connected(self) -> sqlite3.Connection:
        assert self._database is not None
        return self._database

    def _turn(self, index: int, sequence: int) -> _Open:
        """Give a turn's row; the first who asks writes it, marked as incomplete."""
        opened = self._open.get((index, sequence))
        if opened is None:  # committed at once: a slow model must not keep others waiting
            number = self._run(
                "INSERT INTO turns (id, thread_id, turn, sequence, model, datetime_utc) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                str(ULID()),
                self._thread,
                index,
                sequence,
                self._model,
                _now(),
            ).lastrowid
            assert number is not None
            opened = self._open[index, sequence] = _Open(number, time.monotonic())
        return opened

    def _probe(self, bank: BankInfo) -> int:
        """Give a bank its number, known or new."""
        self._run(
            "INSERT OR IGNORE INTO probes VALUES (NULL, ?, ?, ?, ?, ?, ?)",
            _storable(bank.name),
            bank.sha256,
            bank.target,
            json.dumps([_storable(label) for label in bank.labels]),
            bank.primary,
            None if bank.sets is None else json.dumps(asdict(bank.sets)),
        )
        (number,) = self._run(
            "SELECT number FROM probes WHERE name = ? AND sha256 = ?",
            _storable(bank.name),
            bank.sha256,
        ).fetchone()
        return int(number)

    def _write_scores(self) -> None:
        """Write and commit all that waits."""
        self._begin()
        self._try(self._connected.executemany, _TOKEN, self._tokens)
        self._tokens.clear()
        self._commit()

    def _begin(self) -> None:
        if not self._connected.in_transaction:
            self._connected.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        self._run("COMMIT")
        self._committed_s = time.monotonic()

    def _run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        return self._try(self._connected.execute, statement, values)

    def _try(
        self, write: Callable[[str, Any], sqlite3.Cursor], statement: str, values: Any
    ) -> sqlite3.Cursor:
        try:
            return write(statement, values)
        except BaseException:
            # It will be switched off and hear of no end: nobody else may wait for its lock.
            if self._connected.in_transaction:
                self._connected.execute("ROLLBACK")
            raise


def _storable(text: str) -> str:
    """Give text that SQLite takes: lone surrogates are shown as such."""
    return text.encode("utf-8", "backslashreplace").decode()


def _within_64_bits(seed: int) -> int:
    """Fold a seed into SQLite's integers, as torch's may be larger."""
    return seed if -(2**63) <= seed < 2**63 else seed - 2**64


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
