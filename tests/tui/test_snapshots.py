"""The screen looks as it was last approved; `pytest --snapshot-update` approves anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.tui.scripted import ALARM, SURE, ScriptedReply, ask, chat, doubtful, moods, say, sees

SIZES = [(80, 24), (120, 40)]
MESSAGE = "my cat Minka died yesterday, she was twelve years old"
SnapCompare = Callable[..., bool]


@pytest.fixture(autouse=True)
def _with_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some people's shells ask for none, or for few."""
    for name in ("NO_COLOR", "COLORTERM", "TEXTUAL_COLOR_SYSTEM", "TEXTUAL_THEME"):
        monkeypatch.delenv(name, raising=False)


async def settled(pilot: Pilot[Any]) -> None:
    """Wait for a few frames in which nothing changes."""
    for _ in range(3):
        await pilot.pause(0.05)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_empty(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    """Before anything is said."""
    assert snap_compare(chat(), terminal_size=size, run_before=settled)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_writing(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    """In the middle of a reply."""
    app = chat(ScriptedReply(moods()[:9], hangs=True))

    async def until_nine_tokens(pilot: Pilot[Any]) -> None:
        await say(pilot, MESSAGE)
        await sees(pilot, " 9 tokens")
        await settled(pilot)

    assert snap_compare(app, terminal_size=size, run_before=until_nine_tokens)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_finished_with_an_alarm(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    """After a reply that raised an alarm."""
    app = chat(ScriptedReply(moods(), alarms=[ALARM]))

    async def until_ready(pilot: Pilot[Any]) -> None:
        await ask(pilot, MESSAGE)
        await sees(pilot, "▲ alarm")
        await settled(pilot)

    assert snap_compare(app, terminal_size=size, run_before=until_ready)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("tokens", [16, 17], ids=["sets", "abstains"])
def test_unsure(snap_compare: SnapCompare, size: tuple[int, int], tokens: int) -> None:
    """A bank with label sets; it abstained once before, and at the newest token or not."""
    app = chat(ScriptedReply(doubtful()[:tokens]), banks=(SURE,))

    async def until_ready(pilot: Pilot[Any]) -> None:
        await ask(pilot, MESSAGE)
        await settled(pilot)

    assert snap_compare(app, terminal_size=size, run_before=until_ready)
