"""Traces: what was written is what is read, also after a crash, and damage is named."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emowatch import Trace
from emowatch.default_plugins.jsonl_log import SCHEMA as WRITTEN_SCHEMA
from emowatch.default_plugins.jsonl_log import JsonlLog
from emowatch.errors import TraceError
from emowatch.labels import EKMAN7, LabelSets
from emowatch.records import (
    SEGMENTS,
    Alarm,
    BankInfo,
    Drift,
    Scores,
    Segment,
    Session,
    SteeringChange,
    TokenScore,
    Turn,
)
from emowatch.trace import SCHEMA, TokenTable
from tests.conftest import make_bank_info, make_score, make_session, make_turn

MOOD = make_bank_info()
SEVEN = make_bank_info("seven", EKMAN7)
ALARM = Alarm(
    rule="joy at or above 0.50 for 1 token",
    label="joy",
    level="critical",
    score=0.7512345678,
    threshold=0.5,
    bank="mood",
    turn=0,
    sequence=1,
    offset=0,
    drift=Drift(
        segment="reply",
        direction="up",
        size=0.25,
        turn=0,
        place=0,
        tokens=1,
        chart="CUSUM up",
        p=0.5,
    ),
)

STEERING = SteeringChange(
    turn=0,
    sequence=1,
    offset=2,
    plugin="calm",
    direction="joy",
    layer=2,
    strength=24.5,
    applied=16.0,
    total=16.0,
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"mode":"add"', '"mode":"\\u001b[2J"'),
        ('"applied":16.0', '"applied":null'),
        ('"level":"critical"', '"level":"\\u001b[2J"'),
        ('"score":0.7512345678', '"score":null'),
        ('"direction":"up"', '"direction":"\\u001b[2J"'),
    ],
)
def test_alarms_and_steering_of_another_shape_are_refused(
    old: str, new: str, tmp_path: Path
) -> None:
    """Screens show what is in them."""
    log = JsonlLog(tmp_path / "t.jsonl")
    log.session_started(make_session(MOOD))
    log.alarm_raised(ALARM)
    log.steering_changed(STEERING)
    log.session_finished()
    text = log.path.read_text()
    assert text.count(old) == 1
    changed = tmp_path / "changed.jsonl"
    changed.write_text(text.replace(old, new))
    with pytest.raises(TraceError, match="Could not read line"):
        Trace.load(changed)


def scores_of_a_session() -> list[TokenScore]:
    """Score a prompt of two tokens and a reply of three, in two rows, with two banks."""
    draw = np.random.default_rng(0)
    made = []
    for position in range(5):
        for sequence in range(2):
            for bank in (MOOD, SEVEN):
                values = draw.dirichlet(np.ones(len(bank.labels)))
                made.append(
                    make_score(
                        values.tolist(),
                        bank=bank,
                        sequence=sequence,
                        position=position,
                        offset=position - 2 if position >= 2 else None,
                        segment=SEGMENTS[(position + sequence) % len(SEGMENTS)],
                    )
                )
    return made


def write(path: Path, session: Session, scores: list[TokenScore], turns: list[Turn]) -> None:
    """Write a session as the plugin does."""
    log = JsonlLog(path, content="full")
    log.session_started(session)
    for score in scores:
        log.token_scored(score)
    log.alarm_raised(ALARM)
    log.steering_changed(STEERING)
    for turn in turns:
        log.turn_finished(turn)
    log.session_finished()


def assert_same(read: TokenScore, written: TokenScore) -> None:
    """Compare two records; scores are written with 7 decimals."""
    np.testing.assert_allclose(read.scores.array, written.scores.array, rtol=0, atol=6e-8)
    assert list(read.scores) == list(written.scores)
    assert replace(read, scores=written.scores) == written


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    """Write a small trace and give its path."""
    path = tmp_path / "t.jsonl"
    write(path, make_session(), [make_score(offset=k) for k in range(3)], [make_turn()])
    return path


# Writing and reading


def test_a_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Replaying, comparing and judging again all begin here."""
    session = make_session(MOOD, SEVEN, certificate={"parity": 1e-6, "verdict": "sound"})
    means = {bank.name: make_score([0.5] * n, bank=bank).scores for bank, n in ((MOOD, 2),)}
    turns = [
        make_turn(0, 0, "fine\N{WHITE SMILING FACE}\x1b[2J", mean_scores=means),
        make_turn(0, 1, finish_reason="cancelled", token_ids=(), mean_scores=means),
    ]
    scores = scores_of_a_session()
    write(tmp_path / "t.jsonl", session, scores, turns)
    trace = Trace.load(tmp_path / "t.jsonl")
    assert trace.session == session
    assert trace.complete
    assert trace.alarms == [ALARM]
    assert trace.steerings == [STEERING]
    assert trace.turns == turns
    for bank in (MOOD, SEVEN):
        written = [score for score in scores if score.bank == bank.name]
        table = trace.by_bank[bank.name]
        assert len(table) == len(written)
        for one, other in zip(table, written, strict=True):
            assert_same(one, other)


def test_what_a_bank_was_trained_on_survives(tmp_path: Path) -> None:
    """Whoever reads a trace can tell which scores are extrapolated."""
    bank = replace(MOOD, readout="reply", offsets=(0, 95), at_chance=((0, 0), (32, 95)))
    write(tmp_path / "t.jsonl", make_session(bank), [make_score()], [])
    assert Trace.load(tmp_path / "t.jsonl").session.banks == (bank,)


def test_a_trace_that_does_not_say_what_its_banks_were_trained_on_is_read(
    trace_file: Path,
) -> None:
    """Such traces are about."""
    first, *rest = trace_file.read_text(encoding="utf-8").splitlines()
    session = json.loads(first)
    for bank in session["banks"]:
        del bank["readout"], bank["offsets"], bank["at_chance"]
    trace_file.write_text("\n".join([json.dumps(session), *rest]) + "\n", encoding="utf-8")
    (bank,) = Trace.load(trace_file).session.banks
    assert (bank.name, bank.readout, bank.offsets) == ("mood", "", None)


def test_scores_of_all_layers_survive(tmp_path: Path) -> None:
    """A layer-by-time picture is drawn from a trace alone."""
    layer_scores = np.random.default_rng(1).random((4, 2), dtype=np.float32)
    score = replace(make_score(), layers=(0, 1, 2, 3), layer_scores=layer_scores)
    write(tmp_path / "t.jsonl", make_session(), [score, score], [])
    for read in Trace.load(tmp_path / "t.jsonl").tokens:
        assert read.layers == (0, 1, 2, 3)
        assert read.layer_scores is not None and not read.layer_scores.flags.writeable
        np.testing.assert_allclose(read.layer_scores, layer_scores, rtol=0, atol=6e-8)


def test_a_score_that_is_no_number_stays_none(tmp_path: Path) -> None:
    """Half precision overflows; the log of it must still be JSON."""
    write(tmp_path / "t.jsonl", make_session(), [make_score([float("nan"), 0.5])], [])
    for line in (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (read,) = Trace.load(tmp_path / "t.jsonl").tokens
    assert np.isnan(read.scores["anger"]) and read.scores["joy"] == 0.5


def test_writer_and_reader_speak_of_the_same_schema() -> None:
    """The plugin imports only what any plugin may, so the number stands in both."""
    assert WRITTEN_SCHEMA == SCHEMA


def test_the_reply_is_found_in_order_of_offset(tmp_path: Path) -> None:
    """Prompt tokens and other rows are not part of it."""
    scores = scores_of_a_session()
    later = [replace(score, turn=1) for score in scores]
    write(tmp_path / "t.jsonl", make_session(MOOD, SEVEN), scores + later, [])
    trace = Trace.load(tmp_path / "t.jsonl")
    for turn, found in ((1, -1), (0, 0), (0, -2)):
        reply = trace.reply(found, sequence=1, bank="seven")
        assert [(s.turn, s.sequence, s.offset) for s in reply] == [(turn, 1, k) for k in range(3)]
    assert trace.reply(7) == []


# Damage


def test_a_torn_last_line_is_left_out(trace_file: Path) -> None:
    """A process that is killed may leave one."""
    whole = trace_file.read_bytes()
    first = whole.index(b"\n") + 1
    complete = len(Trace.load(trace_file).tokens)
    counts = []
    for size in range(first, len(whole) + 1):
        trace_file.write_bytes(whole[:size])
        trace = Trace.load(trace_file)
        assert trace.complete == (size == len(whole))
        counts.append(len(trace.tokens))
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == complete


def session_with(change: Callable[[dict[str, object]], object]) -> Callable[[list[str]], None]:
    """Make a function that changes the first line."""

    def damage(lines: list[str]) -> None:
        row = json.loads(lines[0])
        change(row)
        lines[0] = json.dumps(row)

    return damage


def line_with(number: int, text: str) -> Callable[[list[str]], None]:
    """Make a function that puts something else in one line's place."""

    def damage(lines: list[str]) -> None:
        lines[number - 1] = text

    return damage


TOKEN = (
    '{"type":"token","bank":%s,"turn":%s,"sequence":0,"position":1,"offset":0,'
    '"segment":%s,"scores":%s}'
)


@pytest.mark.parametrize(
    ("damage", "number", "complaint"),
    [
        (line_with(2, "{"), 2, ""),
        (line_with(2, "[" * 100_000), 2, ""),
        (line_with(2, "7"), 2, "no JSON object"),
        (line_with(3, '"token"'), 3, "no JSON object"),
        (line_with(3, "{}"), 3, "has no 'type'"),
        (line_with(3, '{"type":"tokn"}'), 3, "no 'tokn' lines, only token, alarm, steering,"),
        (line_with(3, '{"type":"\\u001b[2J"}'), 3, ""),
        (line_with(3, TOKEN % (5, 0, '"reply"', "[0,1]")), 3, "range"),
        (line_with(3, TOKEN % (0, 2**40, '"reply"', "[0,1]")), 3, ""),
        (line_with(3, TOKEN % (0, '"x"', '"reply"', "[0,1]")), 3, ""),
        (line_with(3, TOKEN % (0, 0, '"speech"', "[0,1]")), 3, ""),
        (line_with(3, TOKEN % (0, 0, '"reply"', "[0,1,2]")), 3, "shape"),
        (line_with(3, TOKEN % (0, 0, '"reply"', '["high",1]')), 3, ""),
        (line_with(3, '{"type":"alarm","rule":"r"}'), 3, "it has no '"),
        (line_with(3, '{"type":"steering","turn":0}'), 3, "it has no '"),
        (line_with(3, '{"type":"turn","mean_scores":[]}'), 3, ""),
        (line_with(3, '{"type":"turn","mean_scores":{"mood":[1]}}'), 3, "shape"),
        (line_with(3, '{"type":"turn","mean_scores":{"other":[1,2]}}'), 3, "'other'"),
        (session_with(lambda row: row.update(schema=0)), 1, "schema 1"),
        (session_with(lambda row: row.update(banks=[])), 1, "one bank or more"),
        (session_with(lambda row: row.pop("model")), 1, "has no 'model'"),
        (session_with(lambda row: row.update(type="token")), 1, "must be a session"),
    ],
)
def test_a_damaged_line_is_named(
    trace_file: Path, damage: Callable[[list[str]], None], number: int, complaint: str
) -> None:
    """Traces are sent to others, edited and cut; nobody should have to search."""
    lines = trace_file.read_text(encoding="utf-8").splitlines()
    damage(lines)
    trace_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(TraceError, match=f"Could not read line {number} of ") as caught:
        Trace.load(trace_file)
    assert complaint in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "it is empty"), (b"{", "it is empty"), (b"\xff\xfe\n", "not UTF-8")],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    """A session that was killed at once leaves an empty file."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=complaint):
        Trace.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message says which and why."""
    with pytest.raises(TraceError, match=r"gone\.jsonl.*No such file"):
        Trace.load(tmp_path / "gone.jsonl")
    with pytest.raises(TraceError, match="directory"):
        Trace.load(tmp_path)


# A crash

WRITER = """
import sys
import numpy as np
from emowatch.default_plugins.jsonl_log import JsonlLog
from emowatch.records import BankInfo, Scores, Session, TokenScore
bank = BankInfo(name="b", labels=("x", "y"), layers=(1,), primary=1, target="user", sha256="")
log = JsonlLog(sys.argv[1])
log.session_started(Session(id="s", model="m", banks=(bank,), n_layers=2, d_model=4, seed=0))
scores = Scores(bank.labels, np.array([0.25, 0.75], dtype=np.float32))
k = 0
while True:
    log.token_scored(TokenScore(
        bank="b", turn=0, sequence=0, position=k, offset=k, segment="reply", scores=scores))
    k += 1
    print(k, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_process_loses_no_token_that_it_had_logged(tmp_path: Path) -> None:
    """Python's own buffer would lose some thousands. Loss of power is another matter."""
    chance = random.Random(0)
    for attempt in range(10):
        path = tmp_path / f"{attempt}.jsonl"
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            said = "".join(writer.stdout.readline() for _ in range(chance.randrange(1, 3000)))
            os.kill(writer.pid, signal.SIGKILL)
            said += writer.stdout.read()
        acknowledged = said.count("\n")
        trace = Trace.load(path)
        assert not trace.complete
        assert len(trace.tokens) >= acknowledged
        assert [score.position for score in trace.tokens] == list(range(len(trace.tokens)))


# Tables


def table_of(n: int, bank: BankInfo = SEVEN) -> TokenTable:
    """Fill a table with `n` tokens."""
    table = TokenTable(bank)
    scores = np.linspace(0, 1, len(bank.labels), dtype=np.float32)
    for k in range(n):
        offset = k - 2 if k >= 2 else None
        table.append(turn=0, sequence=0, position=k, offset=offset, segment="reply", scores=scores)
    return table


def test_a_token_takes_at_most_64_bytes() -> None:
    """A server that runs for days keeps every token of its session."""
    n = 50_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        table = table_of(n)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(table) == n
    assert (after - before) / n <= 64


def test_a_table_is_a_sequence() -> None:
    """People index, slice and loop."""
    table = table_of(5)
    assert [score.position for score in table] == [0, 1, 2, 3, 4]
    assert [score.position for score in table[-2:]] == [3, 4]
    assert table[-1] == table[4] and table[-5] == table[0]
    for outside in (5, -6):
        with pytest.raises(IndexError, match=f"token {outside} of a trace with 5 tokens"):
            table[outside]
    assert table.array().shape == (5, 7)
    assert table.offsets().tolist() == [-1, -1, 0, 1, 2]


def test_a_record_of_a_table_cannot_be_written_to() -> None:
    """A plugin gets it."""
    with pytest.raises(ValueError, match="read-only"):
        table_of(1)[0].scores.array[0] = 1


def test_the_mean_of_a_reply_leaves_out_the_prompt_and_other_rows() -> None:
    """It is what a turn is remembered by."""
    table = TokenTable(MOOD)
    rows = [(0, 0, None, 9), (0, 1, 0, 9), (1, 0, 0, 1), (1, 0, 1, 2), (1, 1, 1, 9)]
    for turn, sequence, offset, value in rows:
        table.append(
            turn=turn,
            sequence=sequence,
            position=0,
            offset=offset,
            segment="reply",
            scores=np.array([value, 0], dtype=np.float32),
        )
    whole, later = table.mean("reply", 1), table.mean("reply", 1, start=3)
    assert whole is not None and whole.tolist() == [1.5, 0]
    assert later is not None and later.tolist() == [2.0, 0]
    assert table.mean("reply", 5) is None


def test_a_turn_keeps_its_mean_scores_from_being_changed() -> None:
    """They are computed, not read from the table, and were writable once."""
    mean = table_of(4).mean("reply", 0)
    assert mean is not None
    scores = Scores(SEVEN.labels, mean)
    with pytest.raises(ValueError, match="read-only"):
        scores.array[0] = 1


# Means by segment


def table_of_segments() -> TokenTable:
    """Score a prompt that repeats an earlier reply, then thoughts, a call and an answer."""
    table = TokenTable(MOOD)
    rows: list[tuple[Segment, int | None, float]] = [
        ("user", None, 1),
        ("reply", None, 100),
        ("thinking", None, 100),
        ("user", None, 3),
        ("thinking", 0, 10),
        ("thinking", 1, 20),
        ("special", 2, 7),
        ("reply", 3, 4),
        ("reply", 4, 6),
        ("tool", 5, 50),
    ]
    for turn in range(2):
        for sequence in range(2):
            for position, (segment, offset, value) in enumerate(rows):
                table.append(
                    turn=turn,
                    sequence=sequence,
                    position=position,
                    offset=offset,
                    segment=segment,
                    scores=np.array([value + 1000 * turn, sequence], dtype=np.float32),
                )
    return table


def test_thoughts_and_calls_do_not_leak_into_the_mean_of_a_reply() -> None:
    """A model may think one thing and say another: their means are kept apart."""
    table = table_of_segments()
    first, second = table.mean("reply", 0, 1), table.mean("reply", 1, start=20)
    assert first is not None and first.tolist() == [5, 1]
    assert second is not None and second.tolist() == [1005, 0]


def test_a_trace_gives_the_mean_of_each_segment() -> None:
    """Of replies and thoughts only those of the turn, not what the prompt repeats."""
    trace = Trace(make_session())
    trace.by_bank["mood"] = table_of_segments()
    means: dict[Segment, float] = {"user": 2, "thinking": 15, "reply": 5, "tool": 50, "special": 7}
    for segment, value in means.items():
        for turn, more in ((0, 0), (1, 1000), (-1, 1000), (-2, 0)):
            mean = trace.mean(segment, turn, 1, "mood")
            assert mean is not None
            assert dict(mean) == {"anger": value + more, "joy": 1}
    assert trace.mean() == trace.mean("reply", 1)
    assert trace.mean("system") is None
    assert trace.mean("reply", turn=7) is None
    assert Trace(make_session()).mean("reply") is None
    with pytest.raises(ValueError, match=r"no segment 'thoughts'; there are: system, user"):
        trace.mean("thoughts")  # type: ignore[arg-type]


def test_a_reply_of_thoughts_alone_has_no_mean() -> None:
    """It was cut while the model was thinking."""
    table = TokenTable(MOOD)
    values = np.array([0.5, 0.5], dtype=np.float32)
    table.append(turn=0, sequence=0, position=3, offset=0, segment="thinking", scores=values)
    assert table.mean("reply", 0) is None


# Distances and label sets

SETS = LabelSets(level=0.9, bins=(0, 2), thresholds=(0.3, 0.1), last=7)
SURE = replace(make_bank_info("sure"), sets=SETS, can_abstain=True)


def written(path: Path, distance: float | None) -> str:
    """Log one token of a bank that can abstain, and give the file's text."""
    log = JsonlLog(path)
    log.session_started(make_session(SURE))
    log.token_scored(replace(make_score(bank=SURE), distance=distance, sets=SETS))
    log.session_finished()
    return path.read_text()


@pytest.mark.parametrize("distance", [0.25, 3.5, 1e-9, 123456.789])
def test_distances_and_sets_come_back(distance: float, tmp_path: Path) -> None:
    """Enough to judge again without the model."""
    written(tmp_path / "t.jsonl", distance)
    back = Trace.load(tmp_path / "t.jsonl")
    (token,) = back.tokens
    assert back.session.banks == (SURE,)
    assert token.distance == pytest.approx(distance, abs=1e-7, rel=1e-6)
    assert (token.abstains, token.label_set) == (distance > 1, ("joy",))


def test_a_distance_that_is_no_number_stays_none(tmp_path: Path) -> None:
    """It is null in JSON, and the bank abstains there."""
    assert '"distance":null' in written(tmp_path / "t.jsonl", float("nan"))
    (token,) = Trace.load(tmp_path / "t.jsonl").tokens
    assert token.abstains


def test_a_trace_from_before_there_were_sets_is_read_as_it_was(tmp_path: Path) -> None:
    """Its bank has neither, and says so."""
    path = tmp_path / "t.jsonl"
    log = JsonlLog(path)
    log.session_started(make_session(MOOD))
    log.token_scored(make_score(bank=MOOD))
    log.session_finished()
    first, *rest = path.read_text().splitlines(keepends=True)
    table = json.loads(first)
    for bank in table["banks"]:
        del bank["sets"], bank["can_abstain"]
    path.write_text(json.dumps(table) + "\n" + "".join(rest))
    assert "distance" not in rest[0]
    (token,) = Trace.load(path).tokens
    assert token == make_score(bank=MOOD)
    assert (token.distance, token.abstains, token.label_set) == (None, False, ())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"bins":[0,2]', '"bins":[1,2]'),
        ('"bins":[0,2]', '"bins":[0,2,1]'),
        ('"thresholds":[0.3,0.1]', '"thresholds":[0.3]'),
        ('"thresholds":[0.3,0.1]', '"thresholds":null'),
        ('"level":0.9', '"level":"\\u001b[2J"'),
        ('"distance":0.5', '"distance":"\\u001b[2J"'),
    ],
)
def test_sets_and_distances_of_another_shape_are_refused(
    old: str, new: str, tmp_path: Path
) -> None:
    """Screens show what comes of them."""
    text = written(tmp_path / "t.jsonl", 0.5)
    assert text.count(old) == 1
    (tmp_path / "t.jsonl").write_text(text.replace(old, new))
    with pytest.raises(TraceError, match="Could not read line"):
        Trace.load(tmp_path / "t.jsonl")
