"""kill -9 at random moments: nothing that was acknowledged is lost, no half turn looks whole.

A killed process is no power cut: what the kernel has, it still writes. These tests say nothing of
the second.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from emowatch.trace import Trace

ROOT = Path(__file__).parents[2]
TOKENS = 5
WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from emowatch.default_plugins.jsonl_log import JsonlLog
from emowatch.default_plugins.sqlite_log import SqliteLog
from emowatch.records import Drift, SteeringChange
from tests.conftest import ALARM, make_score, make_session, make_turn

drift = Drift(
    segment="reply", direction="up", size=0.1, turn=0, place=0, tokens=1, chart="EWMA up", p=0.5
)
begun = SteeringChange(
    turn=0, sequence=0, offset=0, plugin="p", direction="joy", layer=1, strength=1.0, applied=1.0,
    total=1.0,
)
log = {"jsonl": JsonlLog, "sqlite": SqliteLog}[sys.argv[1]](Path(sys.argv[2]))
log.session_started(make_session())
for turn in range(1_000_000):
    for offset in range(int(sys.argv[3])):
        log.token_scored(make_score(turn=turn, position=9 + offset, offset=offset))
        if offset == 1:
            log.alarm_raised(replace(ALARM, turn=turn, offset=offset, drift=drift))
            log.steering_changed(replace(begun, turn=turn, offset=offset))
    log.steering_changed(replace(begun, turn=turn, offset=offset, strength=0.0, ended=True))
    log.turn_finished(make_turn(index=turn, reply_tokens=int(sys.argv[3])))
    print(turn, flush=True)
"""


def killed(kind: str, path: Path, after_s: float) -> int:
    """Let a process log turns, kill it, and give how many it had acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(path), str(TOKENS)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    time.sleep(after_s)
    process.kill()
    rest = process.stdout.read().splitlines()
    process.stdout.close()
    process.wait()
    return 1 + len(rest)


def check_jsonl(path: Path, acknowledged: int) -> None:
    """Read the trace as anybody would."""
    trace = Trace.load(path)
    assert not trace.complete
    assert acknowledged <= len(trace.turns) <= acknowledged + 1
    for turn in trace.turns[-3:]:
        assert len(trace.reply(turn.index)) == turn.reply_tokens
    ended = {turn.index for turn in trace.turns}
    told = [alarm.turn for alarm in trace.alarms if alarm.turn in ended]
    assert told == sorted(ended) and all(alarm.drift for alarm in trace.alarms)
    changed = [change.turn for change in trace.steerings if change.turn in ended]
    assert changed == sorted([*ended, *ended])


def check_sqlite(path: Path, acknowledged: int) -> None:
    """Ask SQLite whether the file is sound, and count."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        whole, parts = database.execute(
            "SELECT sum(complete), sum(NOT complete) FROM turns"
        ).fetchone()
        torn = database.execute(
            "SELECT count(*) FROM turns WHERE complete AND output_tokens != "
            "(SELECT count(*) FROM tokens WHERE tokens.turn = turns.number)"
        ).fetchone()
        untold = database.execute(
            "SELECT count(*) FROM turns WHERE complete AND ("
            "(SELECT count(*) FROM alarms WHERE alarms.turn = turns.number "
            "AND drift_json IS NOT NULL) != 1 OR "
            "(SELECT count(*) FROM steerings WHERE steerings.turn = turns.number) != 2)"
        ).fetchone()
    assert acknowledged <= whole <= acknowledged + 1
    assert parts <= 1
    assert torn == untold == (0,)


CHECKS = {"jsonl": check_jsonl, "sqlite": check_sqlite}


@pytest.mark.parametrize("kind", CHECKS)
def test_a_killed_process_loses_nothing_that_it_had_acknowledged(kind: str, tmp_path: Path) -> None:
    """Three moments here; `make soak` takes two hundred."""
    moments = random.Random(1)
    for number in range(3):
        path = tmp_path / f"{number}.log"
        CHECKS[kind](path, killed(kind, path, moments.uniform(0.0, 0.4)))


@pytest.mark.soak
@pytest.mark.parametrize("kind", CHECKS)
def test_two_hundred_killed_processes_lose_nothing(kind: str, tmp_path: Path) -> None:
    """As many as the README tells of."""
    moments = random.Random(2)
    for number in range(200):
        path = tmp_path / f"{number}.log"
        CHECKS[kind](path, killed(kind, path, moments.uniform(0.0, 0.5)))
