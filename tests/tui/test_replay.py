"""A stored session on the screen: it plays by itself, and shows what it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emowatch.conformance import recorded_trace
from emowatch.trace import Trace
from emowatch.tui.recorded import UNSAID, TraceSource
from emowatch.tui.replay import ReplayApp
from tests.tui.scripted import sees, shown, until


def with_text(trace: Trace) -> Trace:
    """Give each turn the text that a trace with ``content=full`` holds."""
    for place, turn in enumerate(trace.turns):
        words = tuple(f"word{n}\x1b[2J " for n in range(turn.reply_tokens))
        trace.turns[place] = replace(turn, pieces=words, text="".join(words))
    return trace


def replies(trace: Trace, row: int = 0) -> TraceSource:
    """Give the turns of a row at once."""
    return TraceSource(trace, row)


@pytest.mark.parametrize("row", [0, 1])
def test_every_token_of_a_row_comes_with_the_scores_of_the_record(row: int) -> None:
    """Of each bank, in order, with its text or a sign in its place."""
    trace = recorded_trace()
    source = replies(trace, row)
    assert source.turns == [0, 1]
    for turn in (0, 1):
        tokens = list(source.reply([]))
        for number, bank in enumerate(trace.by_bank):
            told = [token.by_bank[number] for token in tokens]
            assert told == trace.reply(turn, row, bank)
        assert {token.text for token in tokens} == {UNSAID}
    first = next(iter(replies(with_text(recorded_trace())).reply([])))
    assert first.text.startswith("word0")


def test_alarms_come_with_their_tokens_and_the_end_is_that_of_the_record() -> None:
    """Neither before nor after."""
    trace = recorded_trace()
    trace.turns[0] = replace(trace.turns[0], finish_reason="alarm")
    reply = replies(trace).reply([])
    mine = [alarm for alarm in trace.alarms if (alarm.turn, alarm.sequence) == (0, 0)]
    assert mine
    for token in reply:
        due = [alarm for alarm in mine if (alarm.offset or 0) <= token.offset]
        assert list(reply.alarms) == due
    assert reply.finish_reason == "alarm"


def test_a_turn_whose_end_was_never_written_failed() -> None:
    """A crash cut it off; it is not shown as whole."""
    trace = recorded_trace()
    trace.turns.clear()
    reply = replies(trace).reply([])
    assert list(reply) and reply.finish_reason == "failed"


async def test_all_turns_play_one_after_the_other() -> None:
    """Nobody has to press a key, and nothing can be said."""
    app = ReplayApp(replies(with_text(recorded_trace())), notes=("the trace has no end",))
    async with app.run_test(size=(110, 40)) as pilot:
        await until(pilot, lambda: not app._left and app.state == "ready")
        await sees(pilot, "word23")
        screen = shown(app)
        assert app.prompt.disabled
    assert "turn 0" in screen and "turn 1" in screen
    assert "Nothing can be said to a stored session" in screen
    assert "! the trace has no end" in screen
    assert "alarm" in screen and "New chat" not in screen
    assert "\x1b" not in screen


async def test_esc_goes_on_to_the_next_turn() -> None:
    """At a token in a thousand seconds."""
    app = ReplayApp(TraceSource(recorded_trace(), speed=0.001))
    async with app.run_test(size=(110, 30)) as pilot:
        await until(pilot, lambda: app.state == "writing")
        await pilot.press("escape")
        await sees(pilot, "turn 1")
        await pilot.press("escape")
        await until(pilot, lambda: app.state == "stopped" and not app._left)


async def test_help_names_the_keys_of_a_stored_session() -> None:
    """Nothing can be sent there."""
    app = ReplayApp(TraceSource(recorded_trace(), speed=0.001))
    async with app.run_test(size=(110, 40)) as pilot:
        await pilot.press("f1")
        await sees(pilot, "go on to the next turn")
        screen = shown(app)
    assert "send the message" not in screen and "new chat" not in screen


async def test_it_can_be_left_while_it_plays() -> None:
    """At once."""
    app = ReplayApp(TraceSource(recorded_trace(), speed=0.001))
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.state == "writing")
        await pilot.press("ctrl+q")
    assert app.return_code == 0


def test_a_row_that_is_not_there_has_nothing_to_play() -> None:
    """The screen stays empty rather than fail."""
    assert replies(recorded_trace(), 7).turns == []
