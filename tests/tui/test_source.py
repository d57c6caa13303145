"""A model's replies reach the screen as any other's do."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Self

import pytest

import emowatch.streaming
import emowatch.watching
from emowatch.records import ReplyToken
from emowatch.tui import run_chat
from emowatch.tui.app import ChatApp
from emowatch.tui.run import ReplyRun
from emowatch.tui.source import ModelSource
from tests.tui.scripted import ALARM, TONE, ScriptedReply, ScriptedSource, moods


class FakeWatch:
    """An open session that counts how often it was opened and closed."""

    def __init__(self) -> None:
        """Start closed."""
        self.entered = self.left = 0
        self.trace = SimpleNamespace(turns=[])
        self.session = None
        self.plugins = SimpleNamespace(errors={"broken": 1}, flush=lambda _: True, counts={})

    def __enter__(self) -> Self:
        """Open."""
        self.entered += 1
        return self

    def __exit__(self, *why: object) -> None:
        """Close."""
        self.left += 1


class FakeStream:
    """What `emowatch.streaming.answer` gives."""

    alarms = (ALARM,)

    def __init__(self) -> None:
        """Start a reply."""
        self.turn: Any = None
        self.cancelled = False

    def __iter__(self) -> Iterator[ReplyToken]:
        """Give a few tokens and end."""
        yield from moods()
        self.turn = SimpleNamespace(finish_reason="length")

    def close(self) -> None:
        """Stop; nothing runs here."""

    def cancel(self) -> None:
        """Note it."""
        self.cancelled = True


def test_a_model_source_holds_one_session_for_the_whole_chat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """System prompt first, then the dialogue; options reach generate unchanged."""
    watch = FakeWatch()
    asked: list[dict[str, Any]] = []
    streams = [FakeStream(), FakeStream()]

    def answer(watcher: Any, messages: Any, **options: Any) -> FakeStream:
        assert watcher is watch
        asked.append({"messages": messages, **options})
        return streams[len(asked) - 1]

    monkeypatch.setattr(emowatch.streaming, "answer", answer)
    monkeypatch.setattr(emowatch.watching, "watch", lambda *_, **__: watch)
    loaded: Any = SimpleNamespace(model="m", tokenizer="t", name="some-model", blocks=None)
    bank: Any = SimpleNamespace(info=TONE)
    source = ModelSource(
        loaded, [bank], system="Be kind.", max_new_tokens=9, seed=7, temperature=0.5
    )
    assert source.model_name == "some-model"
    assert source.banks == (TONE,)
    reply = source.reply([{"role": "user", "content": "hi"}])
    assert reply.finish_reason is None
    assert [token.text for token in reply] == [token.text for token in moods()]
    reply.cancel()
    assert streams[0].cancelled
    assert reply.finish_reason == "length"
    assert list(reply.alarms) == [ALARM]
    watch.trace.turns.append("the first")
    source.reply([{"role": "user", "content": "again"}])
    source.close()
    source.close()
    assert asked[0]["messages"][0] == {"role": "system", "content": "Be kind."}
    assert [options["seed"] for options in asked] == [7, 8]
    assert (asked[0]["max_new_tokens"], asked[0]["temperature"]) == (9, 0.5)
    assert (watch.entered, watch.left) == (1, 1)
    assert source.plugin_failures == {"broken": 1}


def test_a_reply_that_is_stopped_before_it_began_is_stopped_all_the_same() -> None:
    """Loading a prompt takes seconds on a large model, and Esc may come first."""
    reply = ScriptedReply(moods()[:2], hangs=True)
    run = ReplyRun((), 0.0)
    run.stop()
    run.read(ScriptedSource(reply))
    assert reply.over.is_set()
    assert run.finish_reason == "cancelled"
    assert len(run.take_tokens()) == 2
    assert run.take_tokens() == []


def test_alarms_are_taken_once() -> None:
    """Each frame shows what is new."""
    run = ReplyRun((), 0.0)
    assert run.take_alarms() == []
    run.read(ScriptedSource(ScriptedReply([], alarms=[ALARM])))
    assert run.take_alarms() == [ALARM]
    assert run.take_alarms() == []


def test_run_chat_gives_the_exit_code_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command passes it on."""
    monkeypatch.setattr(ChatApp, "run", lambda self: self.exit(return_code=3))
    assert run_chat(ScriptedSource()) == 3
