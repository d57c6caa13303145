"""Movements over turns: what they are, and how often chance alone finds one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from emowatch.conformance import recorded_trace
from emowatch.drift.turns import FEWEST_TURNS, Movement, TurnSummary, movements, summarise
from emowatch.labels import EKMAN7
from emowatch.records import Scores


def turns(
    values: Sequence[Sequence[float]], labels: Sequence[str] = ("anger", "joy")
) -> list[TurnSummary]:
    """Summarise turns whose replies have these means."""
    return [
        TurnSummary(n, 0, 10, {"reply": Scores(tuple(labels), np.array(v, dtype=np.float32))})
        for n, v in enumerate(values)
    ]


def joy(values: Sequence[float]) -> Movement:
    """Give the movement of a label with these means."""
    return movements(turns([(1 - v, v) for v in values]))[1]


def test_a_summary_has_the_means_of_each_segment_and_row() -> None:
    """Those that the trace gives when it is asked."""
    trace = recorded_trace()
    for bank in trace.by_bank:
        found = summarise(trace, bank)
        assert [(one.turn, one.sequence) for one in found] == [
            (turn.index, turn.sequence) for turn in trace.turns
        ]
        assert [one.tokens for one in found] == [turn.reply_tokens for turn in trace.turns]
        for one in found:
            assert {"user", "reply"} <= set(one.means)
            mean = trace.mean("reply", one.turn, one.sequence, bank)
            assert mean is not None
            assert dict(one.means["reply"]) == dict(mean)


def test_a_slope_and_a_step_are_found_where_they_are() -> None:
    """The change is named by the first turn after it."""
    rising = joy([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert rising.slope == pytest.approx(0.1)
    assert rising.slope_p is not None and rising.slope_p < 0.01
    step = joy([0.1] * 5 + [0.7] * 5)
    assert step.change_at == 5
    assert step.change == pytest.approx(0.6)
    assert step.change_p is not None and step.change_p < 0.05
    level = joy([0.4] * 8)
    assert (level.slope, level.change, level.slope_p, level.change_p) == (0, 0, 1, 1)


def test_few_turns_say_nothing_of_chance_and_one_nothing_at_all() -> None:
    """The figures are told, and the p left out."""
    few = joy([0.1, 0.9, 0.1, 0.9, 0.1][: FEWEST_TURNS - 1])
    assert (few.slope_p, few.change_p) == (None, None)
    assert movements(turns([(0.5, 0.5)])) == []
    assert movements(turns([(0.5, 0.5)] * 8), "thinking") == []


def test_chance_moves_an_emotion_as_rarely_as_it_says() -> None:
    """Over seven emotions together, each test by itself."""
    rng = np.random.default_rng(0)
    sessions, slopes, changes = 40, 0, 0
    for _ in range(sessions):
        found = movements(turns(rng.dirichlet(np.ones(7), 10).tolist(), EKMAN7))
        slopes += min(one.slope_p or 1 for one in found) <= 0.05
        changes += min(one.change_p or 1 for one in found) <= 0.05
    assert max(slopes, changes) <= 6  # 2 are expected; more would come once in 300 times
