"""What a table of ratios says of times that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.overhead_table import ratios, table
from benchmarks.results import Results, Spread, read_results

ABOUT = {
    "group": "emowatch",
    "shape": "135m",
    "batch": 1,
    "prompt": 1,
    "tokens": 2,
    "dtype": "float32",
    "device": "cpu",
    "threads": 2,
    "versions": {},
}


def test_a_way_that_takes_a_tenth_more_has_that_ratio_whatever_the_machine_does() -> None:
    """Its speed drifts from round to round, by far more than the difference."""
    speeds = np.random.default_rng(0).uniform(1, 3, 12)
    rounds = [{"steps": {"plain": [s, s], "way": [1.1 * s, 1.1 * s]}} for s in speeds]
    found = ratios(rounds, "way", "plain")
    assert found.median == pytest.approx(1.1)
    assert found.interval == pytest.approx((1.1, 1.1))
    assert (found.count, found.verdict(1.09), found.verdict(1.11)) == (12, "missed", "met")


def test_noise_widens_the_interval_until_nothing_is_decided() -> None:
    """Where it lies on both sides of a goal."""
    found = Spread.of(np.random.default_rng(1).normal(1, 0.1, 9).tolist())
    assert found.interval[1] - found.interval[0] > 0.02
    assert found.verdict(found.median) == "not decided"


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    """A benchmark may be stopped while it writes."""
    results = Results(tmp_path / "results.jsonl", {"shape": "50m"})
    results.add("round", round=0)
    with results.path.open("a") as file:
        file.write('{"kind": "rou')
    assert list(read_results(results.path)) == [{"kind": "round", "shape": "50m", "round": 0}]


def test_the_table_tells_goals_rivals_faults_and_what_broke_off(tmp_path: Path) -> None:
    """A reader must see what was not measured, and what did other work."""
    results = Results(tmp_path / "results.jsonl", ABOUT)
    steps = {"plain": [1.0, 1.0], "all-layers": [1.01, 1.01], "hidden-states": [1.0, 1.0]}
    said = {"plain": "", "all-layers": "", "hidden-states": "other tokens"}
    for number in range(3):
        results.add("round", round=number, faults=said, attach_s={"all-layers": 2.0}, steps=steps)
    results.add("failed", why="out of memory")
    shown = table(results.path)
    assert "135M parameters, batch 1, 2 tokens after 1, float32, cpu, 2 threads." in shown
    assert "opened in the time of 2.0 tokens" in shown
    assert (
        "| emowatch, all layers | 1.010 [1.010, 1.010], 1.010 to 1.010 (3) |  | ≤ 1.02: met |"
        in shown
    )
    assert "heads afterwards (**other tokens**) | 1.000" in shown
    assert "≥ 1: missed |" in shown
    assert "**broke off**: out of memory" in shown
