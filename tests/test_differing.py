"""Two sessions compared: pairs, means, intervals, and how often chance alone finds something."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from emowatch.conformance import recorded_trace
from emowatch.differing import compare_traces
from emowatch.errors import TraceError
from emowatch.labels import EKMAN7
from emowatch.trace import Trace
from tests.conftest import make_bank_info, make_session

Replies = Sequence[np.ndarray[tuple[int, int], np.dtype[np.float64]]]


def trace_of(replies: Replies, labels: Sequence[str] = EKMAN7, name: str = "mood") -> Trace:
    """Make a trace of replies ``[tokens, labels]``, one a turn, each after one prompt token."""
    trace = Trace(make_session(make_bank_info(name, labels)))
    for turn, reply in enumerate(replies):
        for position, values in enumerate([reply[0], *reply]):
            trace.tokens.append(
                turn=turn,
                sequence=0,
                position=position,
                offset=position - 1 if position else None,
                segment="reply" if position else "user",
                scores=np.array(values, dtype=np.float32),
            )
    return trace


def drawn(
    rng: np.random.Generator, replies: int, tokens: int = 24, shift: float = 0.0
) -> list[np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Draw replies whose scores drift slowly, as those of a model do; `shift` moves joy."""
    found = []
    for _ in range(replies):
        walk = rng.normal(size=7) + np.cumsum(rng.normal(scale=0.2, size=(tokens, 7)), axis=0)
        walk[:, 3] += shift
        found.append(np.exp(walk) / np.exp(walk).sum(1, keepdims=True))
    return found


def test_a_session_beside_itself_does_not_differ() -> None:
    """Whatever the seed."""
    trace = recorded_trace()
    for bank in trace.by_bank:
        found = compare_traces(trace, trace, bank=bank)
        assert (found.distance, found.same_dominant, found.parted_at) == (0, 1, None)
        assert found.p is None  # of four replies
        assert all(one.difference == 0 for one in found.labels)
        assert all(one.correlation == pytest.approx(1) for one in found.labels)


def test_the_figures_are_those_of_the_pairs() -> None:
    """Prompts do not count, and a longer reply leaves tokens without a partner."""
    one = trace_of([np.array([[0.2, 0.8], [0.4, 0.6], [0.5, 0.5]])], ("anger", "joy"))
    other = trace_of([np.array([[0.6, 0.4], [0.4, 0.6]])], ("anger", "joy"))
    found = compare_traces(one, other)
    assert (found.tokens, found.only_first, found.only_second) == (2, 1, 0)
    assert found.distance == pytest.approx(0.2)
    assert (found.same_dominant, found.parted_at) == (0.5, (0, 0, 0))
    joy = found.labels[1]
    assert joy.label == "joy"
    assert joy.first == pytest.approx(0.7)
    assert joy.second == pytest.approx(0.5)
    assert joy.difference == pytest.approx(-0.2)
    assert (found.replies, joy.p, joy.interval) == (1, None, None)


def test_a_shift_of_one_emotion_is_found_and_which_way_it_goes() -> None:
    """With an interval that leaves zero out."""
    rng = np.random.default_rng(0)
    before = drawn(rng, 30)
    moved = [np.clip(reply, 1e-9, None) for reply in before]
    for reply in moved:
        reply[:, 3] *= 1.5
        reply /= reply.sum(1, keepdims=True)
    found = compare_traces(trace_of(before), trace_of(moved))
    joy = found.labels[3]
    assert joy.p is not None and joy.p < 0.001
    assert joy.interval is not None
    assert 0 < joy.interval[0] < joy.difference < joy.interval[1]
    assert found.replies == 30
    beside = compare_traces(trace_of(before), trace_of(before))
    assert beside.p == 1 and beside.labels[0].interval == (0, 0)


def test_exchanging_the_sessions_changes_signs_alone() -> None:
    """The two have the same part."""
    rng = np.random.default_rng(1)
    one, other = trace_of(drawn(rng, 8)), trace_of(drawn(rng, 8, shift=0.5))
    there, back = compare_traces(one, other), compare_traces(other, one)
    assert there.p == back.p
    for a, b in zip(there.labels, back.labels, strict=True):
        assert a.difference == pytest.approx(-b.difference)
        assert (a.first, a.second) == (b.second, b.first)


def test_chance_finds_a_difference_as_rarely_as_it_says() -> None:
    """Over seven emotions together, at scores that drift as slowly as may be."""
    rng = np.random.default_rng(2)
    sessions, found = 100, 0
    for _ in range(sessions):
        p = compare_traces(trace_of(drawn(rng, 12)), trace_of(drawn(rng, 12))).p
        found += p is not None and p <= 0.05
    assert found <= 10  # 5 are expected; more than 10 would come once in 90 times


def test_fewer_than_six_replies_say_nothing_of_chance() -> None:
    """The tokens of one reply are alike, so that there is nothing to exchange."""
    rng = np.random.default_rng(4)
    assert compare_traces(trace_of(drawn(rng, 5, 200)), trace_of(drawn(rng, 5, 200))).p is None
    assert compare_traces(trace_of(drawn(rng, 6)), trace_of(drawn(rng, 6))).p is not None


def test_a_score_that_is_no_number_leaves_its_pair_out() -> None:
    """And what is left is compared."""
    one = trace_of([np.array([[0.5, 0.5], [np.nan, 0.5], [0.25, 0.75]])], ("anger", "joy"))
    other = trace_of([np.array([[0.5, 0.5], [0.5, 0.5], [0.25, 0.75]])], ("anger", "joy"))
    assert compare_traces(one, other).tokens == 2
    nothing = trace_of([np.array([[np.nan, np.nan]])], ("anger", "joy"))
    with pytest.raises(TraceError, match="no numbers"):
        compare_traces(nothing, other)


def test_what_cannot_be_compared_is_refused_in_words() -> None:
    """Other labels, no such bank, nothing in common."""
    rng = np.random.default_rng(3)
    trace = trace_of(drawn(rng, 2))
    with pytest.raises(TraceError, match=r"other labels: anger, .* and anger, joy"):
        compare_traces(trace, trace_of([np.array([[0.5, 0.5]])], ("anger", "joy")))
    with pytest.raises(TraceError, match="no bank 'x'; it has mood"):
        compare_traces(trace, trace, bank="x")
    with pytest.raises(TraceError, match="no reply token"):
        compare_traces(trace, trace_of([]))
