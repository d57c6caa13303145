"""What a table of ratios says of times that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.results import Results, Spread, read_results


def test_a_way_that_takes_a_tenth_more_has_that_ratio_whatever_the_machine_does() -> None:
    """Its speed drifts from pair to pair, by far more than the difference."""
    theirs = np.random.default_rng(0).uniform(1, 3, (12, 4))
    found = Spread.of((theirs * 1.1).tolist(), theirs.tolist())
    assert found.median == pytest.approx(1.1)
    assert found.interval == pytest.approx((1.1, 1.1))
    assert (found.count, found.verdict(1.09), found.verdict(1.11)) == (12, "missed", "met")


def test_each_part_weighs_what_it_takes() -> None:
    """Twice the time for a prompt that is a tenth of a reply is a tenth more."""
    found = Spread.of([[2.0, 9.0]] * 3, [[1.0, 9.0]] * 3)
    assert found.median == pytest.approx(1.1)


def test_one_disturbed_pair_does_not_count_and_noise_widens_the_interval() -> None:
    """Where the interval lies on both sides of a goal nothing is decided."""
    times = np.ones((9, 4))
    times[2, 1] = 50
    assert Spread.of(times.tolist(), np.ones((9, 4)).tolist()).median == 1
    noisy = np.random.default_rng(1).normal(1, 0.1, (9, 4))
    found = Spread.of(noisy.tolist(), np.ones((9, 4)).tolist())
    assert found.interval[1] - found.interval[0] > 0.02
    assert found.verdict(found.median) == "not decided"


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    """A benchmark may be stopped while it writes."""
    results = Results(tmp_path / "results.jsonl", {"shape": "50m"})
    results.add("round", round=0)
    with results.path.open("a") as file:
        file.write('{"kind": "rou')
    assert list(read_results(results.path)) == [{"kind": "round", "shape": "50m", "round": 0}]
