"""A model's replies reach the screen as any other's do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import emowatch.streaming
from emowatch.records import Turn
from emowatch.tui import run_chat
from emowatch.tui.app import ChatApp
from emowatch.tui.run import ReplyRun
from emowatch.tui.source import ModelSource
from tests.tui.scripted import ALARM, TONE, ScriptedReply, ScriptedSource, moods


def test_a_model_source_asks_for_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """System prompt first, then the dialogue; options reach generate unchanged."""
    asked: dict[str, Any] = {}
    ended = SimpleNamespace(finish_reason="length")

    class Stream:
        trace = SimpleNamespace(alarms=[ALARM])
        turn: Turn | None = None

        def __iter__(self) -> Any:
            yield from moods()
            self.turn = ended  # type: ignore[assignment]

        def cancel(self) -> None:
            asked["cancelled"] = True

    def stream(model: Any, tokenizer: Any, messages: Any, **options: Any) -> Stream:
        asked.update(messages=messages, **options)
        return Stream()

    monkeypatch.setattr(emowatch.streaming, "stream", stream)
    loaded: Any = SimpleNamespace(model="m", tokenizer="t", name="some-model")
    bank: Any = SimpleNamespace(info=TONE)
    source = ModelSource(loaded, [bank], system="Be kind.", max_new_tokens=9, temperature=0.5)
    assert source.model_name == "some-model"
    assert source.banks == (TONE,)
    reply = source.reply([{"role": "user", "content": "hi"}])
    assert reply.finish_reason is None
    assert [token.text for token in reply] == [token.text for token in moods()]
    reply.cancel()
    assert reply.finish_reason == "length"
    assert list(reply.alarms) == [ALARM]
    assert asked["messages"][0] == {"role": "system", "content": "Be kind."}
    assert (asked["max_new_tokens"], asked["temperature"]) == (9, 0.5)
    assert asked["cancelled"]


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
