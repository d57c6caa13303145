"""The tables, and how a database is opened, made and brought up to date.

Write-ahead logging: a process that is killed loses what it had not committed and nothing else
("transactions are durable across application crashes regardless of the synchronous setting",
sqlite.org). With ``synchronous=NORMAL`` a power cut may lose the last commits, and never breaks the
file; ``FULL`` loses none.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from emowatch.config import home
from emowatch.errors import LogError
from emowatch.text import clean_line

FILE_NAME = "logs.db"
BUSY_MS = 5_000
"""How long a writer waits for another process."""
MIGRATION_MS = 300_000
"""How long it waits for one that brings the file up to date: some 20 s for a million tokens."""

_FIRST = """
CREATE TABLE threads (
  id TEXT PRIMARY KEY,
  session_id TEXT NOT NULL,
  model TEXT NOT NULL,
  datetime_utc TEXT NOT NULL,
  ended_utc TEXT,
  seed INTEGER,
  content TEXT NOT NULL,
  certificate_json TEXT NOT NULL,
  versions_json TEXT NOT NULL
);
CREATE TABLE probes (
  number INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  target TEXT NOT NULL,
  labels_json TEXT NOT NULL,
  primary_layer INTEGER NOT NULL,
  UNIQUE (name, sha256)
);
CREATE TABLE turns (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  thread_id TEXT NOT NULL REFERENCES threads (id),
  turn INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  model TEXT NOT NULL,
  datetime_utc TEXT NOT NULL,
  complete INTEGER NOT NULL DEFAULT 0,
  finish_reason TEXT,
  input_tokens INTEGER,
  output_tokens INTEGER,
  duration_ms INTEGER,
  options_json TEXT,
  response TEXT,
  response_hmac TEXT
);
CREATE INDEX turns_of_thread ON turns (thread_id);
CREATE TABLE tokens (
  turn INTEGER NOT NULL REFERENCES turns (number),
  position INTEGER NOT NULL,
  offset INTEGER,
  segment TEXT NOT NULL,
  PRIMARY KEY (turn, position)
) WITHOUT ROWID;
CREATE TABLE scores (
  turn INTEGER NOT NULL REFERENCES turns (number),
  position INTEGER NOT NULL,
  probe INTEGER NOT NULL REFERENCES probes (number),
  label TEXT NOT NULL,
  score REAL,
  PRIMARY KEY (turn, position, probe, label)
) WITHOUT ROWID;
CREATE TABLE means (
  turn INTEGER NOT NULL REFERENCES turns (number),
  probe INTEGER NOT NULL REFERENCES probes (number),
  label TEXT NOT NULL,
  score REAL,
  PRIMARY KEY (turn, probe, label)
) WITHOUT ROWID;
CREATE TABLE alarms (
  number INTEGER PRIMARY KEY,
  turn INTEGER NOT NULL REFERENCES turns (number),
  probe INTEGER REFERENCES probes (number),
  offset INTEGER,
  rule TEXT NOT NULL,
  label TEXT NOT NULL,
  level TEXT NOT NULL,
  score REAL,
  threshold REAL
);
CREATE INDEX alarms_of_turn ON alarms (turn);
CREATE TABLE steerings (
  number INTEGER PRIMARY KEY,
  turn INTEGER NOT NULL REFERENCES turns (number),
  offset INTEGER NOT NULL,
  plugin TEXT NOT NULL,
  direction TEXT NOT NULL,
  layer INTEGER NOT NULL,
  strength REAL,
  applied REAL,
  total REAL
);
CREATE INDEX steerings_of_turn ON steerings (turn);
CREATE VIRTUAL TABLE turns_fts USING fts5 (response, content='turns', content_rowid='number');
CREATE TRIGGER turns_are_found AFTER INSERT ON turns WHEN new.response IS NOT NULL BEGIN
  INSERT INTO turns_fts (rowid, response) VALUES (new.number, new.response);
END;
CREATE TRIGGER turns_are_found_anew AFTER UPDATE OF response ON turns BEGIN
  INSERT INTO turns_fts (turns_fts, rowid, response)
    SELECT 'delete', old.number, old.response WHERE old.response IS NOT NULL;
  INSERT INTO turns_fts (rowid, response)
    SELECT new.number, new.response WHERE new.response IS NOT NULL;
END;
CREATE TRIGGER turns_are_forgotten AFTER DELETE ON turns WHEN old.response IS NOT NULL BEGIN
  INSERT INTO turns_fts (turns_fts, rowid, response) VALUES ('delete', old.number, old.response);
END;
CREATE VIEW token_scores AS
  SELECT turns.id AS turn_id, tokens.position, tokens.offset, tokens.segment,
         probes.name AS probe, scores.label, scores.score
  FROM scores
  JOIN tokens USING (turn, position)
  JOIN turns ON turns.number = scores.turn
  JOIN probes ON probes.number = scores.probe;
"""
_ACTIONS = """
ALTER TABLE alarms ADD COLUMN actions TEXT NOT NULL DEFAULT '';
ALTER TABLE steerings RENAME TO earlier_steerings;
DROP INDEX steerings_of_turn;
CREATE TABLE steerings (
  number INTEGER PRIMARY KEY,
  turn INTEGER NOT NULL REFERENCES turns (number),
  offset INTEGER,
  plugin TEXT NOT NULL,
  direction TEXT NOT NULL,
  layer INTEGER NOT NULL,
  mode TEXT NOT NULL,
  strength REAL,
  applied REAL,
  total REAL,
  shadow INTEGER NOT NULL,
  ended INTEGER NOT NULL
);
CREATE INDEX steerings_of_turn ON steerings (turn);
INSERT INTO steerings
  SELECT number, turn, offset, plugin, direction, layer, 'add', strength, applied, total, 0,
         strength = 0 AND applied = 0
  FROM earlier_steerings;
DROP TABLE earlier_steerings;
"""
_DRIFT = "ALTER TABLE alarms ADD COLUMN drift_json TEXT;"
_UNCERTAINTY = """
ALTER TABLE probes ADD COLUMN sets_json TEXT;
CREATE TABLE distances (
  turn INTEGER NOT NULL REFERENCES turns (number),
  position INTEGER NOT NULL,
  probe INTEGER NOT NULL REFERENCES probes (number),
  distance REAL,
  PRIMARY KEY (turn, position, probe)
) WITHOUT ROWID;
"""
_ONE_ROW = """
DROP VIEW token_scores;
CREATE TABLE read_tokens (
  turn INTEGER NOT NULL REFERENCES turns (number),
  position INTEGER NOT NULL,
  probe INTEGER NOT NULL REFERENCES probes (number),
  offset INTEGER,
  segment TEXT NOT NULL,
  scores_json TEXT NOT NULL,
  distance REAL,
  PRIMARY KEY (turn, position, probe)
) WITHOUT ROWID;
INSERT INTO read_tokens
  SELECT turn, position, probe, offset, segment,
         (SELECT json_group_array(score) FROM (
            SELECT scores.score
            FROM json_each(probes.labels_json) AS label
            LEFT JOIN scores ON scores.label = label.value AND scores.turn = scored.turn
              AND scores.position = scored.position AND scores.probe = scored.probe
            ORDER BY label.key)),
         distance
  FROM (SELECT DISTINCT turn, position, probe FROM scores) AS scored
  JOIN tokens USING (turn, position)
  JOIN probes ON probes.number = scored.probe
  LEFT JOIN distances USING (turn, position, probe);
DROP TABLE distances;
DROP TABLE scores;
DROP TABLE tokens;
ALTER TABLE read_tokens RENAME TO tokens;
CREATE VIEW scores AS
  SELECT tokens.turn, tokens.position, tokens.probe, tokens.offset, tokens.segment,
         label.value AS label, score.value AS score
  FROM tokens
  JOIN probes ON probes.number = tokens.probe
  JOIN json_each(tokens.scores_json) AS score
  JOIN json_each(probes.labels_json) AS label ON label.key = score.key;
CREATE VIEW token_scores AS
  SELECT turns.id AS turn_id, scores.position, scores.offset, scores.segment,
         probes.name AS probe, scores.label, scores.score
  FROM scores
  JOIN turns ON turns.number = scores.turn
  JOIN probes ON probes.number = scores.probe;
"""
"""A row for each score took twice the time and the space."""
MIGRATIONS = (_FIRST, _ACTIONS, _DRIFT, _UNCERTAINTY, _ONE_ROW)
"""What brings a file from one schema to the next; ``user_version`` counts those that ran."""


def default_path() -> Path:
    """Name the file that logs go to where none is named."""
    return home() / FILE_NAME


def connect(path: Path, *, make: bool = False, durable: bool = False) -> sqlite3.Connection:
    """Open a log and bring its tables up to date.

    Args:
        path: the file.
        make: make it, and its folder, where it is not there; only its owner may read it then.
        durable: let a commit survive a power cut, which takes some milliseconds each.

    Raises:
        LogError: if it is not there, is no log of emowatch, or is of a newer version.
    """
    shown = clean_line(str(path))
    if not path.exists():
        if not make:
            raise LogError(
                f"Could not open the log {shown!r}: there is none. Sessions are logged with "
                "--log, or always after `emowatch logs on`."
            )
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise LogError(
                f"Could not make the log {shown!r}: {error.strerror}. Name another file."
            ) from error
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise LogError(f"Could not open the log {shown!r}: {error}.") from error
    try:
        _prepare(connection, shown, durable)
    except sqlite3.Error as error:
        connection.close()
        why = "It is damaged, or no log of emowatch"
        if is_busy(error):
            why = "Another process is writing to it, or bringing it up to date. Try again"
        raise LogError(f"Could not open the log {shown!r}: {error}. {why}.") from error
    except LogError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, shown: str, durable: bool) -> None:
    """Bring the tables up to date, whatever other processes do to the file meanwhile."""
    if _schema(connection, shown) < len(MIGRATIONS):
        connection.execute(f"PRAGMA busy_timeout = {MIGRATION_MS}")
        # Views that somebody else has made must not keep a table from its name.
        connection.execute("PRAGMA legacy_alter_table = ON")
        connection.execute("BEGIN IMMEDIATE")  # one process migrates; others wait and look again
        try:
            for number in range(_schema(connection, shown), len(MIGRATIONS)):
                for statement in _statements(MIGRATIONS[number]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:  # half a migration must not stay, also after Ctrl+C
            connection.execute("ROLLBACK")
            raise
        connection.execute("PRAGMA legacy_alter_table = OFF")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    _write_ahead(connection)
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA foreign_keys = ON")


def _schema(connection: sqlite3.Connection, shown: str) -> int:
    """Read which schema a file is of: 0 if it is empty.

    Both are read by one statement. Between two, another process may have made the tables.
    """
    version, tables = connection.execute(
        "SELECT user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version"
    ).fetchone()
    if version > len(MIGRATIONS):
        raise LogError(
            f"Could not open the log {shown!r}: it is of schema {version}, and this version of "
            f"emowatch reads up to {len(MIGRATIONS)}. Upgrade emowatch."
        )
    if not version and tables:
        raise LogError(
            f"Could not open the log {shown!r}: it is a database of something else. Name another "
            "file."
        )
    return int(version)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, which SQLite refuses at once, without waiting, while another
    process holds the file.
    """
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether another process holds the file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def _statements(script: str) -> list[str]:
    """Part a script into statements; `executescript` would commit what has begun."""
    found, part = [], ""
    for line in script.strip().splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    assert not part.strip(), part
    return found
