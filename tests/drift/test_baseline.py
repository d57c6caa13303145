"""The promise of a baseline: its bound, kept on sessions that it has not seen."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from emowatch.default_plugins.drift_alarm import DriftAlarm
from emowatch.drift.baseline import Baseline, calibrate, upper_bound
from emowatch.errors import BaselineError
from emowatch.trace import Trace
from tests.conftest import make_bank_info, make_session
from tests.drift.sessions import session


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 50), (7, 30), (49, 50), (5, 5)])
def test_the_bound_is_that_of_clopper_and_pearson(successes: int, trials: int) -> None:
    """Beside scipy, which the package does not load for it."""
    exact = 1.0 if successes == trials else beta.ppf(0.95, successes + 1, trials - successes)
    assert upper_bound(successes, trials) == pytest.approx(exact, abs=1e-9)


def test_a_baseline_promises_what_its_maxima_bear() -> None:
    """The lowest threshold whose bound is within what was asked for."""
    rng = np.random.default_rng(0)
    found = calibrate([session(rng) for _ in range(200)], rate=1.0)
    over = sum(one > found.threshold for one in found.maxima)
    per_thousand = 1000 * 100 / found.tokens
    assert found.bound == pytest.approx(upper_bound(over, 100) * per_thousand)
    assert found.bound <= 1.0 < upper_bound(over + 1, 100) * per_thousand
    assert f"{over} of 100 rows with 10000 reply tokens pass" in found.told
    assert found.longest == 100
    assert found.chance(found.maxima[-1]) == pytest.approx(2 / 101)
    assert found.chance(np.inf) == pytest.approx(1 / 101)


def test_the_promise_is_kept_on_sessions_that_it_has_not_seen() -> None:
    """A 95 % bound may fail one time in twenty; here, over 20 calibrations, three at most."""
    rng, failed = np.random.default_rng(1), 0
    fresh = [session(rng) for _ in range(150)]
    for _ in range(20):
        base = calibrate([session(rng) for _ in range(60)], rate=2.0)
        alarmed = 0
        for trace in fresh:
            charts = base.charts()
            passed = [charts.take(score.scores.array.tolist()) for score in trace.tokens]
            alarmed += any(passed)
        failed += 1000 * alarmed / sum(len(t.tokens) for t in fresh) > base.bound
    assert failed <= 3


def test_alarms_keep_the_promise_where_rows_differ_in_length_and_much_is_allowed(
    tmp_path: Path,
) -> None:
    """Counted as the plugin raises them: a long row must not raise two for one."""
    rng, failed, raised = np.random.default_rng(7), 0, 0

    def rows(count: int) -> list[Trace]:
        return [session(rng, int(rng.integers(20, 200))) for _ in range(count)]

    fresh = rows(200)
    tokens = sum(len(trace.tokens) for trace in fresh)
    for _ in range(5):
        base = calibrate(rows(80), rate=4.0)
        base.save(tmp_path / "b.json")
        plugin = DriftAlarm(tmp_path / "b.json")
        alarms = 0
        for trace in fresh:
            plugin.session_started(trace.session)
            alarms += sum(plugin.judge(score) is not None for score in trace.tokens)
        failed += 1000 * alarms / tokens > base.bound
        raised += alarms
    assert failed <= 1
    assert raised > 100


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    """To the last bit."""
    rng = np.random.default_rng(2)
    found = calibrate([session(rng, 40) for _ in range(30)], rate=100)
    found.save(tmp_path / "b.json")
    assert Baseline.load(tmp_path / "b.json") == found


def test_a_baseline_of_before_segments_is_of_replies(tmp_path: Path) -> None:
    """Nobody has to record anew."""
    path = tmp_path / "b.json"
    row = changed(schema=2)
    assert row.pop("segment") == "reply"
    path.write_text(json.dumps(row))
    assert Baseline.load(path).segment == "reply"


def test_rows_of_a_batch_are_sessions_of_their_own() -> None:
    """Twenty in one trace are enough."""
    rng = np.random.default_rng(3)
    assert len(calibrate([session(rng, 40, rows=40)], rate=100).maxima) == 20


def changed(**fields: Any) -> dict[str, Any]:
    """Give a sound file's content with other values."""
    rng = np.random.default_rng(4)
    sound = asdict(calibrate([session(rng, 40) for _ in range(20)], rate=100))
    return {"schema": 3, **json.loads(json.dumps(sound)), **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"schema": 1},
        {"schema": 4},
        {"segment": "song"},
        {"threshold": 0.0},
        {"longest": 0},
        {"longest": 10_000_000},
        {"labels": ["joy"]},
        {"labels": ["joy", "joy"]},
        {"means": [0.1]},
        {"means": "high"},
        {"spreads": [0.0] * 7},
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"maxima": []},
        {"tokens": 0},
        {"scales": [[1.0] * 7]},
        {"scales": [[0.0] * 7] * 4},
        {"more": 1},
    ],
)
def test_a_damaged_file_is_refused_in_words(fields: dict[str, Any], tmp_path: Path) -> None:
    """A monitor with a broken threshold would be silent for ever, or never."""
    path = tmp_path / "b.json"
    path.write_text(json.dumps(changed(**fields)), encoding="utf-8")
    with pytest.raises(BaselineError, match="calibrate"):
        Baseline.load(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"null", b'{"schema":1}'])
def test_what_is_no_baseline_is_refused_in_words(content: bytes, tmp_path: Path) -> None:
    """And so is a file that is not there."""
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(BaselineError, match=r"b\.json"):
        Baseline.load(path)
    with pytest.raises(BaselineError, match="No such file"):
        Baseline.load(tmp_path / "gone.json")


def test_what_cannot_be_calibrated_is_refused_in_words() -> None:
    """Too few rows, too high a promise, other banks, a score that never varies."""
    rng = np.random.default_rng(5)
    few = [session(rng, 40) for _ in range(19)]
    with pytest.raises(BaselineError, match="19 rows of sessions: 20 or more"):
        calibrate(few)
    with pytest.raises(BaselineError, match=r"bound them by .* at best\. Record more"):
        calibrate([*few, session(rng, 40)], rate=0.01)
    other = Trace(make_session(make_bank_info("other", few[0].tokens.bank.labels)))
    with pytest.raises(BaselineError, match="'mood' and 'other'"):
        calibrate([*few, other])
    with pytest.raises(BaselineError, match="no bank 'x'"):
        calibrate(few, bank="x")
    flat = [session(np.random.default_rng(6), 1, turns=1) for _ in range(20)]
    with pytest.raises(BaselineError, match="never varies"):
        calibrate(flat)


def test_a_row_whose_scores_are_no_numbers_is_left_out() -> None:
    """It can tell nothing of what is usual."""
    rng = np.random.default_rng(7)
    traces = [session(rng, 40) for _ in range(20)]
    broken = Trace(replace(traces[0].session))
    broken.tokens.append(
        turn=0,
        sequence=0,
        position=1,
        offset=0,
        segment="reply",
        scores=np.full(7, np.nan, dtype=np.float32),
    )
    assert calibrate([*traces, broken], rate=100) == calibrate(traces, rate=100)
