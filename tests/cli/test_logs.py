"""``emowatch logs``: what is shown of a log, in which form, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from emowatch.default_plugins.sqlite_log import SqliteLog
from emowatch.records import SteeringChange
from tests.cli.commands import PROMPT, Cli, refused
from tests.conftest import ALARM, make_score, make_session, make_turn


@pytest.fixture
def log() -> list[str]:
    """Log three turns in two threads to the user's file, and give their ids."""
    for model, texts in (("tiny", ("=cats purr", "dogs \x1b[2Jbark")), ("other", ("birds",))):
        log = SqliteLog(content="full")
        log.session_started(make_session(model=model))
        for turn, text in enumerate(texts):
            high = 0.9 if "dogs" in text else 0.4
            log.token_scored(make_score((0.95, 0.05), turn=turn, position=1, offset=None))
            log.token_scored(make_score((1 - high, high), turn=turn, position=2))
            if "dogs" in text:
                log.alarm_raised(ALARM if turn == 0 else _alarm_of(turn))
            log.turn_finished(make_turn(index=turn, text=text))
        log.session_finished()
    with closing(sqlite3.connect(Path(os.environ["EMOWATCH_HOME"]) / "logs.db")) as database:
        return [one for (one,) in database.execute("SELECT id FROM turns ORDER BY number")]


def _alarm_of(turn: int) -> Any:
    from dataclasses import replace

    return replace(ALARM, turn=turn)


def ids(cli: Cli, *flags: object) -> list[str]:
    """Give the ids of the turns that are shown."""
    done = cli("logs", "--json", *flags)
    assert done.code == 0, done.err
    return [turn["id"] for turn in json.loads(done.out)]


def test_turns_are_chosen_by_every_flag(cli: Cli, log: list[str]) -> None:
    """Those of llm, and those for scores."""
    cats, dogs, birds = log
    assert ids(cli) == log
    assert ids(cli, "-n", 1) == [birds]
    assert ids(cli, "-n", 0) == log
    assert ids(cli, "-m", "tiny") == [cats, dogs]
    assert ids(cli, "-c") == [birds]
    assert ids(cli, "-q", "purr OR birds") == [cats, birds]
    assert ids(cli, "--id-gt", cats) == [dogs, birds]
    assert ids(cli, "--alarms") == [dogs]
    assert ids(cli, "--min", "joy=0.8") == [dogs]
    assert ids(cli, "--min", "anger=0.9") == []  # reached in the prompt alone
    assert ids(cli, "--min", "joy=0.3", "-m", "other") == [birds]
    (thread,) = {turn["thread_id"] for turn in json.loads(cli("logs", "--json", "-c").out)}
    assert ids(cli, "--cid", thread) == [birds]


def test_turns_are_shown_as_text_without_what_a_terminal_would_obey(
    cli: Cli, log: list[str]
) -> None:
    """Means, alarms, the reply."""
    done = cli("logs")
    assert "\x1b" not in done.out
    assert f"{log[1]} 2" in done.out
    assert "alarm (watch) at offset 0: because, 0.75" in done.out
    assert "mood: joy 0.75, anger 0.25" in done.out
    assert "2 tokens, stop · 1 alarms" in done.out
    short = cli("logs", "-s").out.splitlines()
    assert [line.split()[0] for line in short] == log
    assert cli("logs", "-r").out == "birds\n"


def test_steering_is_shown_with_its_turn(cli: Cli) -> None:
    """What was done and what would have been; its largest strength of many changes."""
    log = SqliteLog()
    log.session_started(make_session())
    log.token_scored(make_score())
    for strength in (1.0, -3.5, 2.0):
        log.steering_changed(_change(strength))
    log.steering_changed(_change(4.0, plugin="steer", shadow=True))
    log.turn_finished(make_turn())
    log.session_finished()
    done = cli("logs")
    assert done.code == 0, done.err
    assert " · steered\n" in done.out
    assert "  governor steered joy at layer 4: add, strength up to 1.75\n" in done.out
    assert "  steer would have steered joy at layer 4: add, strength up to 4.00\n" in done.out
    (turn,) = json.loads(cli("logs", "--json").out)
    assert [one["most"] for one in turn["steerings"]] == [1.75, 4.0]
    assert [one["shadow"] for one in turn["steerings"]] == [False, True]


def _change(strength: float, plugin: str = "governor", shadow: bool = False) -> SteeringChange:
    applied = 0.0 if shadow else 0.5 * strength  # as under a cap
    return SteeringChange(
        turn=0,
        sequence=0,
        offset=0,
        plugin=plugin,
        direction="joy",
        layer=4,
        strength=strength,
        applied=applied,
        total=abs(applied),
        shadow=shadow,
    )


def test_csv_holds_no_formula_and_no_control_character(cli: Cli, log: list[str]) -> None:
    """It will be opened in a spreadsheet."""
    done = cli("logs", "--csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["id"] for row in rows] == log
    assert rows[0]["response"] == "'=cats purr"
    assert "\x1b" not in rows[1]["response"]
    assert (rows[1]["mood.joy"], rows[1]["alarms"]) == ("0.75", "1")


def test_parquet_holds_the_same_rows(cli: Cli, log: list[str], tmp_path: Path) -> None:
    """For whoever reads them with pandas."""
    from pyarrow import parquet

    assert cli("logs", "--parquet", tmp_path / "turns.parquet").code == 0
    table = parquet.read_table(tmp_path / "turns.parquet").to_pylist()
    assert [row["id"] for row in table] == log
    assert table[0]["response"] == "=cats purr"


def test_a_turn_whose_end_was_never_written_is_shown_as_such(cli: Cli) -> None:
    """No half turn looks whole."""
    log = SqliteLog()
    log.session_started(make_session())
    log.token_scored(make_score())
    assert "INCOMPLETE" in cli("logs").out
    assert not json.loads(cli("logs", "--json").out)[0]["complete"]
    assert "incomplete turns 1" in cli("logs", "status").out
    log.session_finished()


def test_path_status_and_backup(cli: Cli, log: list[str], tmp_path: Path) -> None:
    """`datasette "$(emowatch logs path)"` needs the path and nothing else."""
    place = Path(os.environ["EMOWATCH_HOME"]) / "logs.db"
    assert cli("logs", "path").out == f"{place}\n"
    told = cli("logs", "status").out.splitlines()
    assert told[:2] == ["logging is off", f"log {place}"]
    assert {"threads 2", "turns 3", "alarms 1"} <= set(told)
    copy = tmp_path / "copy.db"
    assert cli("logs", "backup", copy).code == 0
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT count(*) FROM turns").fetchone() == (3,)
    refused(cli("logs", "backup", copy), "copy.db", "there already")


def test_what_cannot_be_asked_is_refused_in_words(cli: Cli, log: list[str]) -> None:
    """With what can be."""
    refused(cli("logs", "--min", "joi=0.8"), "'joi'", "there are: anger, joy")
    refused(cli("logs", "--min", "joy=8"), "as in --min joy=0.8")
    refused(cli("logs", "--min", "joy"), "as in --min joy=0.8")
    for query in ('"', "well-being", "who:what"):
        refused(cli("logs", "-q", query), "Could not search for", "Quote words")


def test_without_a_log_it_says_how_to_get_one(cli: Cli) -> None:
    """The first thing that a newcomer types."""
    refused(cli("logs"), "there is none", "--log", "logs on")
    assert cli("logs", "status").out.endswith("nothing is logged yet\n")


def test_text_that_was_not_logged_is_said_to_be_missing(cli: Cli) -> None:
    """An empty line would look like an empty reply."""
    log = SqliteLog()
    log.session_started(make_session())
    log.token_scored(make_score())
    log.turn_finished(make_turn(text="secret"))
    log.session_finished()
    refused(cli("logs", "-r"), "--content full")
    assert cli("logs", "--csv", "--json").code == 2
    assert "secret" not in cli("logs").out


def test_commands_log_where_asked_or_where_it_is_on(cli: Cli, model: Path, bank: Path) -> None:
    """Off by default, on by a flag, on for good by `logs on`, off by a flag again."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2

    def count() -> int:
        done = cli("logs", "-n", 0, "--json")
        return len(json.loads(done.out)) if done.code == 0 else 0

    assert cli("run", PROMPT, *flags).code == 0
    assert count() == 0
    assert cli("run", PROMPT, *flags, "--log", "--content", "full").code == 0
    assert count() == 1
    assert cli("logs", "-r").code == 0
    assert cli("logs", "on").code == 0
    assert cli("run", PROMPT, *flags).code == 0
    assert count() == 2
    assert cli("chat", *flags, stdin=b"hello\n").code == 0
    assert count() == 3
    assert cli("run", PROMPT, *flags, "-n").code == 0
    assert count() == 3
    assert cli("logs", "off").code == 0
    assert cli("run", PROMPT, *flags).code == 0
    assert count() == 3
