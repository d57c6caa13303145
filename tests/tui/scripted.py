"""Replies that are written beforehand, for screens without a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
from textual.pilot import Pilot

from emowatch.labels import EKMAN7, LabelSets
from emowatch.records import (
    Alarm,
    BankInfo,
    FinishReason,
    ReplyToken,
    Scores,
    SteeringChange,
    TokenScore,
)
from emowatch.tui.app import ChatApp, State
from emowatch.tui.source import Message
from emowatch.tui.transcript import ReplyView

TONE = BankInfo(
    name="demo-tone7", labels=EKMAN7, layers=(5,), primary=5, target="reply", sha256="0" * 64
)
HEARD = BankInfo(
    name="demo-ekman7", labels=EKMAN7, layers=(4,), primary=4, target="user", sha256="1" * 64
)
ALARM = Alarm(
    rule="sadness above 0.60 for 3 tokens",
    label="sadness",
    level="warning",
    score=0.71,
    threshold=0.6,
    bank="demo-tone7",
    turn=0,
    sequence=0,
    offset=5,
)
MOODS = (
    ("Oh no, ", "surprise", 0.55),
    ("I am so ", "sadness", 0.48),
    ("sorry ", "sadness", 0.66),
    ("to hear ", "sadness", 0.74),
    ("that. ", "sadness", 0.81),
    ("Losing ", "sadness", 0.69),
    ("a friend ", "fear", 0.41),
    ("of twelve ", "neutral", 0.62),
    ("years ", "neutral", 0.71),
    ("leaves ", "neutral", 0.58),
    ("a big, ", "sadness", 0.52),
    ("quiet ", "sadness", 0.63),
    ("room. ", "sadness", 0.58),
    ("What ", "neutral", 0.44),
    ("made ", "joy", 0.39),
    ("her ", "joy", 0.52),
    ("laugh?", "joy", 0.68),
)


def scores(label: str, value: float, labels: tuple[str, ...] = EKMAN7) -> Scores:
    """Give one label its value and share the rest out unevenly, always in the same way."""
    weights = np.arange(1, len(labels) + 1, dtype=np.float32)
    weights[labels.index(label)] = 0
    values = weights / weights.sum() * np.float32(1 - value)
    values[labels.index(label)] = value
    return Scores(labels, values)


def token(
    text: str, offset: int = 0, label: str = "joy", value: float = 0.6, banks: int = 2
) -> ReplyToken:
    """Make one token; the second bank hears sadness in the user's message."""
    infos = (TONE, HEARD)[:banks]
    by_bank = tuple(
        TokenScore(
            bank=info.name,
            turn=0,
            sequence=0,
            position=20 + offset,
            offset=offset,
            segment="reply",
            scores=scores(label, value) if info is TONE else scores("sadness", 0.7),
        )
        for info in infos
    )
    return ReplyToken(text=text, token_id=offset, by_bank=by_bank)


def moods() -> list[ReplyToken]:
    """Make a reply that passes through several tones."""
    return [token(text, k, label, value) for k, (text, label, value) in enumerate(MOODS)]


class ScriptedReply:
    """Hands out its tokens at once; with `hangs` it then waits to be cancelled, like a model
    that is still busy."""

    def __init__(
        self,
        tokens: Sequence[ReplyToken],
        *,
        hangs: bool = False,
        alarms: Sequence[Alarm] = (),
        steerings: Sequence[SteeringChange] = (),
        error: Exception | None = None,
    ) -> None:
        """Keep the script; an error comes after the tokens."""
        self.tokens = tokens
        self.hangs = hangs
        self.script = alarms
        self.error = error
        self.cancelled = threading.Event()
        self.over = threading.Event()
        self.alarms: list[Alarm] = []
        self.steerings = list(steerings)
        self.finish_reason: FinishReason | None = None

    def __iter__(self) -> Iterator[ReplyToken]:
        """Follow the script."""
        try:
            yield from self.tokens
            self.alarms.extend(self.script)
            if self.hangs:
                assert self.cancelled.wait(20), "nobody stopped the reply"
            if self.error is not None:
                raise self.error
            self.finish_reason = "cancelled" if self.cancelled.is_set() else "stop"
        finally:
            self.over.set()

    def cancel(self) -> None:
        """Note that somebody wants it to stop."""
        self.cancelled.set()


class ScriptedSource:
    """Gives prepared replies in order and remembers what it was asked."""

    model_name = "emowatch-demo"

    def __init__(
        self, *replies: ScriptedReply, banks: tuple[BankInfo, ...] = (TONE, HEARD)
    ) -> None:
        """Keep the replies."""
        self.banks = banks
        self.replies = list(replies)
        self.asked: list[list[Message]] = []

    def reply(self, messages: Sequence[Message]) -> ScriptedReply:
        """Give the next reply."""
        self.asked.append(list(messages))
        return self.replies[len(self.asked) - 1]


def ticking(step_s: float = 2.4) -> Callable[[], float]:
    """Make a clock that moves on by the same step whenever it is looked at."""
    ticks = count()
    return lambda: step_s * next(ticks)


def chat(*replies: ScriptedReply, **options: Any) -> ChatApp:
    """Make an app over prepared replies; its cursor stands still."""
    app = ChatApp(ScriptedSource(*replies, **options), clock=ticking())
    app.prompt.cursor_blink = False
    return app


def shown(app: ChatApp) -> str:
    """Read what the whole screen shows, row by row."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Wait for the app to come to a state; threads and timers have no fixed pace."""
    for _ in range(400):
        if holds():
            await pilot.pause()
            return
        await pilot.pause(0.02)
    raise AssertionError("the app did not come to the state that was waited for")


async def sees(pilot: Pilot[None], text: str) -> None:
    """Wait for a text on the screen."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    for _ in range(400):
        if text in shown(app):
            return
        await pilot.pause(0.02)
    raise AssertionError(f"the screen does not show {text!r}:\n{shown(app)}")


async def say(pilot: Pilot[None], text: str) -> None:
    """Write a message and send it."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    app.prompt.value = text
    await pilot.press("enter")


async def ask(pilot: Pilot[None], text: str, state: State = "ready") -> None:
    """Send a message and wait for the end of its reply."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    before = len(app.query(ReplyView))
    await say(pilot, text)

    def is_over() -> bool:
        views = list(app.query(ReplyView))
        return len(views) > before and views[-1].ending != "running" and app.state == state

    await until(pilot, is_over)
    await pilot.pause(0.05)  # the frame that shows it


SURE = replace(
    TONE,
    sets=LabelSets(level=0.9, bins=(0, 4), thresholds=(0.11, 0.09), last=500),
    can_abstain=True,
)
"""The tone bank with label sets, which can abstain."""


def doubtful() -> list[ReplyToken]:
    """Make the same reply as that bank scores it; it abstains at the fourth and the last token."""
    made = []
    for k, (text, label, value) in enumerate(MOODS):
        one = token(text, k, label, value, banks=1)
        distance = 1.7 if k in (3, len(MOODS) - 1) else 0.6
        score = replace(one.by_bank[0], distance=distance, sets=SURE.sets)
        made.append(replace(one, by_bank=(score,)))
    return made
