"""Drive plugins over a stored trace as when the model spoke. Needs neither model nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from emowatch.dispatch import Dispatcher
from emowatch.records import Alarm, Steering, TokenScore, Turn
from emowatch.trace import Trace


@dataclass(frozen=True, slots=True)
class ShadowSteering:
    """What a plugin would have added to the residual; in a replay nothing is."""

    plugin: str
    turn: int
    sequence: int
    offset: int | None
    """`None` where it was asked for before the prompt."""
    wish: Steering


@dataclass(slots=True)
class Replay:
    """What plugins answered to a stored trace."""

    tokens: int = 0
    """States told of, each once for every bank."""
    alarms: list[Alarm] = field(default_factory=list)
    wishes: list[ShadowSteering] = field(default_factory=list)


def replay(trace: Trace, plugins: Dispatcher) -> Replay:
    """Tell plugins of a stored session again, in the order in which it happened.

    Alarms are those that the plugins raise now; the recorded ones are not told. What plugins
    ask to steer is kept in the answer, and what was added at the time is told as it was.
    """
    session, answer = trace.session, Replay()
    tables = list(trace.by_bank.values())
    waiting = sorted(trace.turns, key=lambda turn: turn.index)
    changes = list(trace.steerings)
    rows: dict[int, list[int]] = {}
    for score in tables[0]:
        if score.sequence not in (known := rows.setdefault(score.turn, [])):
            known.append(score.sequence)
    begun = -1
    plugins.tell("session_started", session)
    try:
        for place in range(min(map(len, tables))):
            records = [table[place] for table in tables]
            first = records[0]
            _finish(waiting, first.turn, trace, plugins)
            if first.turn != begun:
                begun = first.turn
                for row in rows[begun]:
                    _begin(begun, row, trace, plugins, answer)
            # What began before the prompt is told before its tokens.
            while changes and changes[0].offset is None and changes[0].turn <= first.turn:
                plugins.tell("steering_changed", session, change=changes.pop(0))
            _tell(records, trace, plugins, answer)
            while changes and _has_come(changes[0].turn, changes[0].offset, first):
                plugins.tell("steering_changed", session, change=changes.pop(0))
        _finish(waiting, None, trace, plugins)
    finally:
        plugins.tell("session_finished", session)
        plugins.finish(session)
    return answer


def _tell(records: Sequence[TokenScore], trace: Trace, plugins: Dispatcher, out: Replay) -> None:
    """Tell of one state, with the hooks in the order that `docs/plugins.md` states."""
    out.tokens += 1
    session = trace.session
    for record in records:
        plugins.tell("token_scored", session, score=record)
    for record in records:
        for _, answer in plugins.call("judge", session, score=record):
            for alarm in answer if isinstance(answer, Sequence) else (answer,):
                out.alarms.append(alarm)
                plugins.tell("alarm_raised", session, alarm=alarm)
    for record in records:
        if record.offset is None:
            continue
        for name, wish in plugins.call("steer", session, score=record):
            _take(out, name, record.turn, record.sequence, record.offset, wish)


def _begin(turn: int, row: int, trace: Trace, plugins: Dispatcher, out: Replay) -> None:
    """Ask what is to be done throughout a turn in one row."""
    for name, wish in plugins.call("steer_turn", trace.session, turn=turn, sequence=row):
        _take(out, name, turn, row, None, wish)


def _take(
    out: Replay,
    plugin: str,
    turn: int,
    sequence: int,
    offset: int | None,
    answer: Steering | Sequence[Steering],
) -> None:
    for wish in answer if isinstance(answer, Sequence) else (answer,):
        out.wishes.append(ShadowSteering(plugin, turn, sequence, offset, wish))


def _has_come(turn: int, offset: int | None, score: TokenScore) -> bool:
    """Tell whether a state is the one at which something was decided, or a later one."""
    if score.turn != turn or offset is None:
        return score.turn >= turn
    return score.offset is not None and score.offset >= offset


def _finish(waiting: list[Turn], before: int | None, trace: Trace, plugins: Dispatcher) -> None:
    """Finish the turns that were over when turn number `before` began; `None` is the end."""
    while waiting and (before is None or waiting[0].index < before):
        plugins.tell("turn_finished", trace.session, turn=waiting.pop(0))
