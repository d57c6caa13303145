"""Expressions about traces: what they measure, what they say, and what they refuse to run."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emowatch.assertions import FUNCTIONS, Verdict, function_table, judge_trace
from emowatch.conformance import recorded_trace
from emowatch.errors import EmowatchError, ExpressionError
from emowatch.trace import Trace
from tests.conftest import ALARM, make_bank_info, make_session, make_turn

GUIDE = Path(__file__).parents[1] / "docs" / "traces.md"


def trace_of(*replies: Sequence[float], labels: Sequence[str] = ("anger", "joy")) -> Trace:
    """Make a trace in which joy has these scores, one reply after another."""
    trace = Trace(make_session(make_bank_info(labels=labels)))
    for turn, joy in enumerate(replies):
        for position, value in enumerate((0.99, *joy)):
            trace.tokens.append(
                turn=turn,
                sequence=0,
                position=position,
                offset=position - 1 if position else None,
                segment="reply" if position else "user",
                scores=np.array([1 - value, value], dtype=np.float32),
            )
        trace.turns.append(make_turn(index=turn, reply_tokens=len(joy)))
    return trace


TRACE = trace_of((0.25, 0.75, 0.5, 0.25), (0.125, 0.5))


def holds(expression: str, trace: Trace = TRACE) -> bool:
    """Hold a trace to an expression."""
    return judge_trace(trace, expression).holds


@pytest.mark.parametrize(
    ("call", "value"),
    [
        ("max(joy)", 0.75),  # .99 stands in the prompt
        ("min(joy)", 0.125),
        ("mean(joy)", (0.25 + 0.75 + 0.5 + 0.25 + 0.125 + 0.5) / 6),
        ("std(joy)", float(np.std([0.25, 0.75, 0.5, 0.25, 0.125, 0.5]))),
        ("final(joy)", 0.5),
        ("jump(joy)", 0.5),
        ("share(joy, .5)", 0.5),
        ("half_life(joy)", math.inf),  # the second reply ends at its peak
        ("alarms()", 0),
        ("turns()", 2),
        ("tokens()", 6),
        ("max(anger)", 0.875),
    ],
)
def test_each_function_measures_what_it_says(call: str, value: float) -> None:
    """Of the replies' tokens alone."""
    ((told, measured),) = judge_trace(TRACE, f"{call} == 0").compared[0].values
    assert told == call.replace(".5", "0.5")
    assert measured == pytest.approx(value, abs=1e-6)


def test_every_function_has_a_test_of_its_value() -> None:
    """One that nobody measured could say anything."""
    marks = test_each_function_measures_what_it_says.pytestmark  # type: ignore[attr-defined]
    tested = {call.partition("(")[0] for call, _ in marks[0].args[1]}
    assert tested == set(FUNCTIONS)


def test_half_life_counts_from_the_peak_to_the_first_half() -> None:
    """The longest of all replies; one that does not fall lasts for ever."""
    assert holds("half_life(joy) == 2", trace_of((0.25, 0.75, 0.5, 0.375, 0.75)))
    assert holds("half_life(joy) == 3", trace_of((0.8, 0.1), (0.8, 0.5, 0.5, 0.4)))
    assert holds("half_life(joy) > 1000", trace_of((0.1, 0.8)))


def test_conditions_are_joined_and_stop_where_they_are_decided() -> None:
    """What was not looked at is not told."""
    assert holds("max(joy) > .7 and mean(joy) < .5")
    assert not holds("max(joy) > .7 and mean(joy) > .5")
    assert holds("max(joy) > .8 or max(anger) > .8")
    assert holds("not max(joy) > .8")
    assert holds("0 < min(joy) <= .125 < max(joy)")
    assert holds("max(joy) - min(joy) > 1 / 2")
    assert holds("-max(joy) < +0")
    assert len(judge_trace(TRACE, "max(joy) > .9 and tokens() > 1").compared) == 1


def test_a_verdict_tells_what_each_part_came_to() -> None:
    """A failed check in a pipeline must not need the trace to be understood."""
    verdict = judge_trace(TRACE, "tokens() > 1 and max(joy) < .6")
    assert verdict.told.splitlines() == [
        "ok      tokens() > 1",
        "        tokens() is 6",
        "FAILED  max(joy) < 0.6",
        "        max(joy) is 0.75",
    ]


@pytest.mark.parametrize("expression", ["max(joy) < 1", "not max(joy) > 1", "max(joy) != 1"])
def test_what_cannot_be_measured_makes_nothing_hold(expression: str) -> None:
    """A session in which nothing was said must not pass by saying nothing."""
    assert not holds(expression, trace_of(()))
    assert not holds(f"{expression} or tokens() == 0", trace_of(()))
    assert holds("tokens() == 0", trace_of(()))


def test_another_bank_can_be_asked() -> None:
    """The first is the default."""
    trace = recorded_trace()
    first, second = trace.by_bank
    one = judge_trace(trace, "mean(joy) > 0", bank=first).compared[0].values
    assert one == judge_trace(trace, "mean(joy) > 0").compared[0].values
    assert one != judge_trace(trace, "mean(joy) > 0", bank=second).compared[0].values
    with pytest.raises(ExpressionError, match=r"no bank 'x'.*demo-tone7"):
        judge_trace(trace, "mean(joy) > 0", bank="x")
    assert judge_trace(trace, f"alarms() == {len(trace.alarms)}").holds
    trace.alarms.append(ALARM)
    assert judge_trace(trace, f"alarms() == {len(trace.alarms)}").holds


def test_a_label_that_is_no_name_stands_in_quotes() -> None:
    """Labels come from anybody's file."""
    assert holds('max("very happy") > .7', trace_of((0.75,), labels=("so-so", "very happy")))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "Could not read"),
        ("max(joy) <", "Could not read"),
        ("max(joy)", "a comparison such as"),
        ("joy > tokens()", "as in max(joy)"),
        ("maxx(joy) > .5", "did you mean max?"),
        ("max(joi) > .5", "did you mean 'joy'?"),
        ("max() > .5", "max takes a label"),
        ("share(joy) > .5", "share takes a label, a score"),
        ("share(joy, anger) > .5", "is a score, not 'anger'"),
        ("max(3) > .5", "A label is a name, got 3"),
        ("1 < 2", "it measures nothing"),
        ("max(joy) < 6", "scores are from 0 to 1"),
        ("2 > mean(joy)", "scores are from 0 to 1"),
        ("share(joy, 2) < 1", "from 0 to 1, got 2"),
        ("max(joy) > True", "a number or a function"),
        ("max(joy) > 'x'", "a number or a function"),
        ("max(joy) in (1, 2)", "a number or a function"),
        ("max(joy) is 1", "it compares with"),
        ("max(joy, key=len) > 1", "the functions are"),
        ("max(max(joy)) > 1", "takes labels and numbers"),
        ("2 ** 99 > tokens()", "a number or a function"),
        ("1" + "0" * 400 + " > tokens()", "too large"),
        ("max(joy) > 1" + " or max(joy) > 1" * 100, "at most 1000"),
        ("not " * 60 + "max(joy) > 1", "nested more than 40 deep"),
        ("-" * 80 + "max(joy) > 1", "nested more than 40 deep"),
        # What would run something, had Python the say.
        ("__import__('os').system('touch pwned') > 1", "the functions are"),
        ("max.__class__ > tokens()", "a number or a function"),
        ("(lambda: 1)() > 1", "the functions are"),
        ("[x for x in ()] > tokens()", "a number or a function"),
        ("max(joy) > (y := 1)", "a number or a function"),
        ("f'{max}' > tokens()", "a number or a function"),
        ("exit() > 1", "there is no function 'exit'"),
        ("max(joy) > 1; import os", "Could not read"),
        ("open('pwned', 'w') > 1", "there is no function 'open'"),
        ("max(joy) > 1\x00", "Could not read"),
        ("max(\x1b[2J) > 1", "Could not read"),
    ],
)
def test_what_is_no_such_expression_is_refused_in_words_and_never_run(
    expression: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline takes expressions from files that anybody may send."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExpressionError) as caught:
        judge_trace(TRACE, expression)
    assert words in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=80) | st.text(alphabet="max(joy)<>.5 andornot_\"'+-*/1,", max_size=60))
def test_any_text_is_decided_or_refused(expression: str) -> None:
    """Whatever is thrown at it."""
    try:
        assert isinstance(judge_trace(TRACE, expression), Verdict)
    except EmowatchError:
        pass


def test_the_guide_lists_every_function_in_its_own_words() -> None:
    """A table that is written by hand grows old."""
    guide = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\(.*?\))` \| (.*?) \|$", guide, re.MULTILINE)
    assert rows == list(function_table())
