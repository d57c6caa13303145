"""Plugins that misbehave in every way that isolation must hold against, and hostile records."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from emowatch.hookspecs import hookimpl
from emowatch.records import Alarm, Scores, Session, TokenScore, Turn
from emowatch.trace import Trace

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\ud800[@click=app.quit]" + "\n" * 50
"""Escape sequences, a C1 byte, a bidi control, a lone surrogate and markup."""
SLOW_S = 0.02


class Raises:
    """Fails at the first token."""

    @hookimpl
    def token_scored(self) -> None:
        """Fail."""
        raise RuntimeError(HOSTILE)


class Exits:
    """Asks the interpreter to end, as a careless dependency does."""

    @hookimpl
    def judge(self) -> None:
        """Ask."""
        raise SystemExit(3)


class Recurses:
    """Calls itself without end."""

    @hookimpl
    def token_scored(self) -> None:
        """Call itself."""
        self.token_scored()


class Answers:
    """Answers with what nobody can use."""

    @hookimpl
    def judge(self) -> object:
        """Answer."""
        return object()


class Changes:
    """Tries to change what the others are going to hear."""

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Try."""
        score.scores.array[:] = 0.0


class Slow:
    """Takes four times its budget at each token."""

    @hookimpl
    def token_scored(self) -> None:
        """Take its time."""
        time.sleep(SLOW_S)


def bad_company() -> list[object]:
    """Make one plugin of each kind."""
    return [Raises(), Exits(), Recurses(), Answers(), Changes(), Slow()]


def hostile_trace(trace: Trace) -> Trace:
    """Give a trace of the same shape that holds what a model or a bank's author might put there.

    Scores that are no numbers, names and text full of control characters, an empty reply, one
    that failed.
    """
    banks = tuple(replace(bank, name=f"{bank.name}{HOSTILE}") for bank in trace.session.banks)
    made = Trace(replace(trace.session, model=HOSTILE, banks=banks))
    for old, new in zip(trace.by_bank.values(), made.by_bank.values(), strict=True):
        for place, score in enumerate(old):
            values = np.array(score.scores.array)
            values[place % len(values)] = (np.nan, np.inf, -np.inf, 0.0, 1.0)[place % 5]
            new.append(
                turn=score.turn,
                sequence=score.sequence,
                position=score.position,
                offset=score.offset,
                segment=score.segment,
                scores=values,
            )
    made.turns = [
        replace(
            turn,
            text=HOSTILE * 100,
            token_ids=(0, 2**31),
            finish_reason="failed",
            mean_scores={f"{bank}{HOSTILE}": mean for bank, mean in turn.mean_scores.items()},
        )
        if turn.index % 2
        else replace(turn, text="", token_ids=(), reply_tokens=0, mean_scores={})
        for turn in trace.turns
    ]
    return made


def hostile_alarm(session: Session) -> Alarm:
    """Make an alarm whose words are hostile."""
    return Alarm(
        rule=HOSTILE,
        label=HOSTILE,
        level="critical",
        score=float("nan"),
        threshold=0.5,
        bank=session.banks[0].name,
        turn=0,
        sequence=0,
        offset=None,
    )


def cut_trace(trace: Trace) -> Trace:
    """Give the first half of a trace, whose last turn never ends."""
    made = Trace(trace.session)
    for old, new in zip(trace.by_bank.values(), made.by_bank.values(), strict=True):
        for score in old[: len(old) // 2]:
            new.add(score)
    return made


def broken_turns(trace: Trace) -> list[Turn]:
    """Give turns of a trace with means that are no numbers."""
    return [
        replace(
            turn,
            mean_scores={
                name: Scores(tuple(scores), np.full(len(scores), np.nan, dtype=np.float32))
                for name, scores in turn.mean_scores.items()
            },
        )
        for turn in trace.turns
    ]
