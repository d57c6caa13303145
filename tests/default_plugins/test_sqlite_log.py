"""The SQLite log: what is on file, what is not, who may read it, and what is refused."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from emowatch.conformance import recorded_trace
from emowatch.default_plugins.sqlite_log import COMMIT_S, SqliteLog
from emowatch.dispatch import Dispatcher
from emowatch.errors import LogError
from emowatch.labels import LabelSets
from emowatch.logbook import connect, default_path, schema
from emowatch.logbook.reading import Asked, read_turns
from emowatch.logbook.schema import MIGRATIONS
from emowatch.plugins import make_plugin_manager
from emowatch.records import Drift
from emowatch.replaying import replay
from tests.conftest import ALARM, make_bank_info, make_score, make_session, make_turn

SECRET = "the canary sings at noon"
ROOT = Path(__file__).parents[2]


def log_session(log: SqliteLog, text: str = SECRET) -> None:
    """Log a session of one turn: a prompt token, two reply tokens, an alarm."""
    session = make_session()
    log.session_started(session)
    log.token_scored(make_score(offset=None, position=8, segment="user"))
    log.token_scored(make_score())
    log.alarm_raised(ALARM)
    log.token_scored(make_score((0.5, 0.5), position=10, offset=1))
    log.turn_finished(make_turn(text=text))
    log.session_finished()


def rows(path: Path, question: str) -> list[Any]:
    """Ask the file with SQLite's own library."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(question).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Name a log, and check in the end that it is sound."""
    place = tmp_path / "logs.db"
    yield place
    if place.exists():
        assert rows(place, "PRAGMA integrity_check") == [("ok",)]
        assert rows(place, "PRAGMA foreign_key_check") == []


def test_a_session_is_a_thread_of_turns_with_tokens_scores_means_and_alarms(path: Path) -> None:
    """All of it can be read with plain SQL."""
    log_session(SqliteLog(path))
    ((thread, model, ended),) = rows(path, "SELECT id, model, ended_utc FROM threads")
    assert model == "tiny" and ended
    (turn,) = rows(path, "SELECT thread_id, complete, finish_reason, input_tokens FROM turns")
    assert turn == (thread, 1, "stop", 10)
    assert rows(path, "SELECT position, offset, segment FROM tokens ORDER BY position") == [
        (8, None, "user"),
        (9, 0, "reply"),
        (10, 1, "reply"),
    ]
    assert rows(path, "SELECT label, score FROM scores WHERE position = 9") == [
        ("anger", 0.25),
        ("joy", 0.75),
    ]
    assert rows(path, "SELECT label, score FROM means") == [("anger", 0.25), ("joy", 0.75)]
    (alarm,) = rows(path, "SELECT rule, offset, threshold, drift_json FROM alarms")
    assert alarm == ("because", 0, 0.5, None)
    assert rows(path, "SELECT name, sha256, target FROM probes") == [("mood", "ab", "user")]
    (seen,) = rows(path, "SELECT count(*), sum(score) FROM token_scores WHERE probe = 'mood'")
    assert seen == (6, 3.0)


def test_a_recorded_batch_comes_back_whole(path: Path) -> None:
    """Two banks, two rows, two turns, steering: every score that the trace holds."""
    trace = recorded_trace()
    plugins = make_plugin_manager([SqliteLog(path)])
    replay(trace, Dispatcher(plugins, on_error="raise"))
    for name, table in trace.by_bank.items():
        found = rows(
            path,
            "SELECT t.turn, t.sequence, position, label, score FROM scores JOIN turns t "
            f"ON t.number = scores.turn JOIN probes p ON p.number = probe WHERE p.name = '{name}'",
        )
        logged = {tuple(row[:4]): row[4] for row in found}
        kept = {
            (s.turn, s.sequence, s.position, label): value
            for s in table
            for label, value in s.scores.items()
        }
        assert logged == pytest.approx(kept, abs=1e-7)
    assert rows(path, "SELECT count(*) FROM turns WHERE complete") == [(4,)]
    steered = rows(path, "SELECT offset, direction, strength FROM steerings ORDER BY number")
    assert steered == [(c.offset, c.direction, c.strength) for c in trace.steerings]


def test_sessions_share_one_file_and_a_bank_its_row(path: Path) -> None:
    """The log grows by turns, not by what is known of banks."""
    log = SqliteLog(path)
    log_session(log)
    log_session(log)
    log_session(SqliteLog(path))
    assert rows(path, "SELECT count(*) FROM threads") == [(3,)]
    assert rows(path, "SELECT count(*) FROM probes") == [(1,)]
    ids = [one for (one,) in rows(path, "SELECT id FROM turns ORDER BY number")]
    assert ids == sorted(ids) and len(set(ids)) == 3  # ULIDs sort by time


def test_without_a_path_it_is_the_users_own_file() -> None:
    """The one that `emowatch logs` reads."""
    assert SqliteLog().path == default_path() == Path(os.environ["EMOWATCH_HOME"]) / "logs.db"


# What is not on file


@pytest.mark.parametrize("content", ["none", "hash"])
def test_text_is_nowhere_in_the_file_unless_asked_for(content: str, path: Path) -> None:
    """Not in a table, not in the index, not in what waits to be merged."""
    log_session(SqliteLog(path, content=content))
    files = [file.read_bytes() for file in path.parent.iterdir()]
    for word in SECRET.split():
        if len(word) > 3:
            assert not any(word.encode() in written for written in files)
    ((hashed,),) = rows(path, "SELECT response_hmac FROM turns")
    assert (hashed is not None) == (content == "hash")


def test_text_that_was_asked_for_can_be_searched(path: Path) -> None:
    """Whatever bytes a tokenizer makes of it."""
    log_session(SqliteLog(path, content="full"), text=f"{SECRET} a\ud83d\x00\x1b")
    found = rows(path, "SELECT rowid FROM turns_fts WHERE turns_fts MATCH 'canary AND noon'")
    assert found == [(1,)]
    ((text,),) = rows(path, "SELECT response FROM turns")
    assert text.startswith(SECRET) and "\\ud83d" in text


@pytest.mark.skipif(os.name != "posix", reason="modes are a matter of POSIX")
def test_only_the_owner_may_read_it(path: Path) -> None:
    """Also what SQLite puts beside it while it is open."""
    log = SqliteLog(path)
    log.session_started(make_session())
    log.token_scored(make_score())
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    log.session_finished()


# While it is written


def test_a_turn_is_incomplete_until_its_end_is_written(path: Path) -> None:
    """Whoever reads meanwhile, or after a crash, sees that it is a part."""
    log = SqliteLog(path)
    log.session_started(make_session())
    log.token_scored(make_score())
    assert rows(path, "SELECT complete, finish_reason FROM turns") == [(0, None)]
    log.turn_finished(make_turn())
    assert rows(path, "SELECT complete, finish_reason FROM turns") == [(1, "stop")]
    log.session_finished()


def test_scores_are_committed_within_a_quarter_of_a_second(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an alarm at once, with the scores before it."""
    now = 100.0
    monkeypatch.setattr("emowatch.default_plugins.sqlite_log.time.monotonic", lambda: now)
    log = SqliteLog(path)
    log.session_started(make_session())
    log.token_scored(make_score(position=1, offset=None))
    assert rows(path, "SELECT count(*) FROM tokens") == [(0,)]
    now += COMMIT_S
    log.token_scored(make_score(position=2, offset=0))
    assert rows(path, "SELECT count(*) FROM tokens") == [(2,)]
    log.token_scored(make_score(position=3, offset=1))
    log.alarm_raised(ALARM)
    assert rows(path, "SELECT count(*) FROM tokens") == [(3,)]
    log.session_finished()


def test_what_drifts_is_kept_and_read_back(path: Path) -> None:
    """As fields, and not in the rule's words alone; also in a log that an older version made."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for migration in MIGRATIONS[:2]:
            database.executescript(migration)
        database.execute("PRAGMA user_version = 2")
    drift = Drift(
        segment="user",
        direction="down",
        size=-0.25,
        turn=3,
        place=33,
        tokens=12,
        chart="CUSUM down",
        p=0.25,
    )
    log = SqliteLog(path)
    log.session_started(make_session())
    log.token_scored(make_score())
    log.alarm_raised(replace(ALARM, drift=drift))
    log.alarm_raised(ALARM)
    log.turn_finished(make_turn())
    log.session_finished()
    with closing(connect(path)) as database:
        (turn,) = read_turns(database, Asked())
    assert [alarm["drift"] for alarm in turn.alarms] == [asdict(drift), None]


def test_a_log_with_a_row_for_each_score_is_brought_up_to_date(path: Path) -> None:
    """As versions before wrote it: two probes, labels in another order, no number, a distance."""
    labels = {1: ("joy", "anger"), 2: ("anger", "fear", "joy")}
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for migration in MIGRATIONS[:4]:
            database.executescript(migration)
        database.execute("PRAGMA user_version = 4")
        database.execute("INSERT INTO threads VALUES ('t', 's', 'm', '', NULL, 0, 'none', '', '')")
        database.execute(
            "INSERT INTO turns (number, id, thread_id, turn, sequence, model, datetime_utc) "
            "VALUES (7, 'i', 't', 0, 0, 'm', '')"
        )
        for number, names in labels.items():
            database.execute(
                "INSERT INTO probes VALUES (?, ?, 'sha', 'user', ?, 3, NULL)",
                (number, f"bank{number}", json.dumps(names)),
            )
        wanted: list[tuple[Any, ...]] = []
        for position in range(3):
            offset = position - 1 if position else None
            segment = "reply" if position else "user"
            database.execute("INSERT INTO tokens VALUES (7, ?, ?, ?)", (position, offset, segment))
            for probe, names in labels.items():
                for place, label in enumerate(names):
                    score = (
                        None
                        if (position, place) == (2, 1)
                        else round(position / 10 + place / 100, 2)
                    )
                    row = (7, position, probe, label, score)
                    database.execute("INSERT INTO scores VALUES (?, ?, ?, ?, ?)", row)
                    wanted.append((position, offset, segment, f"bank{probe}", label, score))
        database.execute("INSERT INTO distances VALUES (7, 1, 2, 0.75)")
        database.execute("CREATE VIEW glad AS SELECT * FROM scores WHERE label = 'joy'")
    connect(path).close()
    assert len(rows(path, "SELECT * FROM glad")) == 6  # what somebody made with datasette
    found = rows(
        path,
        "SELECT position, offset, segment, probe, label, score FROM token_scores "
        "ORDER BY position, probe",
    )
    assert sorted(map(str, found)) == sorted(map(str, wanted))
    assert len(rows(path, "SELECT * FROM scores")) == len(wanted)
    distances = "SELECT position, probe, distance FROM tokens WHERE distance IS NOT NULL"
    assert rows(path, distances) == [(1, 2, 0.75)]
    assert rows(path, "SELECT count(*) FROM tokens") == [(6,)]
    log_session(SqliteLog(path))
    assert rows(path, "SELECT count(*) FROM turns") == [(2,)]


def test_a_writer_that_waits_for_a_token_keeps_no_other_waiting(path: Path) -> None:
    """Two chats into one file, one of them slow."""
    slow, quick = SqliteLog(path), SqliteLog(path)
    slow.session_started(make_session())
    slow.token_scored(make_score())
    log_session(quick)
    slow.turn_finished(make_turn())
    slow.session_finished()
    assert rows(path, "SELECT count(*) FROM turns WHERE complete") == [(2,)]


def test_a_failed_write_keeps_no_other_waiting(path: Path) -> None:
    """As where a later version has changed the file: the plugin goes off, and lets go of it."""
    log = SqliteLog(path)
    log.session_started(make_session())
    log.token_scored(make_score())
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE tokens ADD COLUMN more TEXT")
    with pytest.raises(sqlite3.OperationalError, match="8 columns"):
        log.turn_finished(make_turn())
    with closing(sqlite3.connect(path, timeout=0.1)) as database:
        database.execute("UPDATE turns SET model = 'other'")
        database.commit()


def test_a_log_that_others_hold_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said to be busy."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for migration in MIGRATIONS[:4]:
            database.executescript(migration)
        database.execute("PRAGMA user_version = 4")
        database.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(schema, "MIGRATION_MS", 50)
        with pytest.raises(LogError, match=r"Another process is writing to it.*Try again"):
            connect(path)


WRITER = """
import sys
from pathlib import Path
from emowatch.default_plugins.sqlite_log import SqliteLog
from tests.conftest import make_score, make_session, make_turn

log = SqliteLog(Path(sys.argv[1]))
log.session_started(make_session())
for turn in range(int(sys.argv[2])):
    for offset in range(2):
        log.token_scored(make_score(turn=turn, position=9 + offset, offset=offset))
    log.turn_finished(make_turn(index=turn))
log.session_finished()
"""


def test_several_processes_write_into_one_file(path: Path) -> None:
    """Nobody's turns are lost, and none is refused."""
    each, processes = 200, 3
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(each)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    told = [one.communicate(timeout=300)[1] for one in started]
    assert [one.returncode for one in started] == [0] * processes, told
    assert rows(path, "SELECT count(*) FROM turns WHERE complete") == [(each * processes,)]
    assert rows(path, "SELECT count(*) FROM scores") == [(each * processes * 4,)]


OPENER = """
import sys
import time
from pathlib import Path
from emowatch.logbook.schema import connect
print("ready", flush=True)
time.sleep(float(sys.stdin.readline()) - time.time())
for number in range(40):
    connect(Path(sys.argv[1]) / f"{number}.db", make=True).close()
"""


def test_several_processes_make_one_file_at_the_same_moment(tmp_path: Path) -> None:
    """Each finds a log: neither a database of something else nor a locked one."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    begin = str(time.time() + 0.2)
    for one in started:
        assert one.stdin is not None
        one.stdin.write(f"{begin}\n")
        one.stdin.flush()
    told = [one.communicate(timeout=300)[1] for one in started]
    assert [one.returncode for one in started] == [0] * len(started), told


# What is refused, and what goes wrong


def test_what_is_no_log_of_ours_is_left_alone(tmp_path: Path) -> None:
    """Somebody's database, a text, a folder, a file of a newer version."""
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE mine (x)")
    text = tmp_path / "text.db"
    text.write_text("not a database at all, but long enough to be read as one" * 20)
    (tmp_path / "folder").mkdir()
    newer = tmp_path / "newer.db"
    connect(newer, make=True).close()
    with closing(sqlite3.connect(newer)) as database:
        database.execute("PRAGMA user_version = 99")
    for place, words in (
        (other, "something else"),
        (text, "no log of emowatch"),
        (tmp_path / "folder", "Could not open"),
        (newer, "schema 99"),
        (tmp_path / "text.db" / "inside.db", "Could not make"),
    ):
        with pytest.raises(LogError, match=place.name) as caught:
            SqliteLog(place)
        assert words in str(caught.value)
    assert text.read_text().startswith("not a database")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"content": "all"}, "none, hash or full"), ({"durable": "maybe"}, "true or false")],
)
def test_an_option_that_cannot_be_is_refused(
    options: dict[str, str], words: str, path: Path
) -> None:
    """Before a file is made."""
    with pytest.raises(ValueError, match=words):
        SqliteLog(path, **options)
    assert not path.exists()


def test_durable_means_that_every_commit_waits_for_the_disk(path: Path) -> None:
    """`synchronous` is 2 then, and 1 otherwise."""
    for durable, level in (("true", 2), (False, 1)):
        log = SqliteLog(path, durable=durable)
        log.session_started(make_session())
        assert log._connected.execute("PRAGMA synchronous").fetchone() == (level,)
        log.session_finished()


def test_a_disk_that_fills_switches_the_log_off_and_the_model_speaks_on(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite's own limit on pages stands for the disk; what was committed is still there."""
    log = SqliteLog(path)
    plugins = Dispatcher(make_plugin_manager([log]))
    session = make_session()
    plugins.tell("session_started", session)
    pages = log._connected.execute("PRAGMA page_count").fetchone()[0]
    log._connected.execute(f"PRAGMA max_page_count = {pages + 2}")
    for turn in range(400):
        plugins.tell("token_scored", session, score=make_score(turn=turn))
        plugins.tell("turn_finished", session, turn=make_turn(index=turn))
    plugins.tell("session_finished", session)
    assert plugins.errors == {"SqliteLog": 1}
    assert "database or disk is full" in capsys.readouterr().err
    (kept,) = rows(path, "SELECT count(*), sum(complete) FROM turns")
    assert 0 < kept[1] <= kept[0] < 400


def test_the_session_line_keeps_what_made_the_numbers(path: Path) -> None:
    """Versions and the doctor's certificate, as in a trace."""
    log = SqliteLog(path)
    log.session_started(make_session(certificate={"passed": True}, seed=2**64 - 1))
    log.session_finished()
    ((certificate, versions, seed),) = rows(
        path, "SELECT certificate_json, versions_json, seed FROM threads"
    )
    assert json.loads(certificate) == {"passed": True}
    assert "emowatch" in json.loads(versions)
    assert seed == -1  # 64 bits are SQLite's largest integer


def test_distances_and_the_rule_of_sets_are_kept(path: Path) -> None:
    """A bank without them writes neither."""
    sets = LabelSets(level=0.9, bins=(0,), thresholds=(0.2,), last=9)
    sure = replace(make_bank_info("sure"), sets=sets, can_abstain=True)
    log = SqliteLog(path)
    log.session_started(make_session(make_bank_info(), sure))
    for position, distance in ((8, 0.5), (9, float("nan"))):
        log.token_scored(make_score(position=position))
        log.token_scored(replace(make_score(bank=sure, position=position), distance=distance))
    log.session_finished()
    found = rows(
        path,
        "SELECT probes.name, position, distance FROM tokens "
        "JOIN probes ON probes.number = probe ORDER BY position, probe",
    )
    assert found == [("mood", 8, None), ("sure", 8, 0.5), ("mood", 9, None), ("sure", 9, None)]
    kept = rows(path, "SELECT name, sets_json FROM probes ORDER BY number")
    assert kept[0] == ("mood", None)
    assert json.loads(kept[1][1])["thresholds"] == [0.2]
