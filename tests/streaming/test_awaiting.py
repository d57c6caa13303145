"""Streams that are awaited: the loop is never held up, and errors reach whoever waits."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch import hookimpl
from emowatch.bank import ProbeBank
from emowatch.errors import ContextError, PluginError, UnsupportedError, UsageError
from emowatch.records import ReplyToken
from emowatch.streaming import AsyncStream, aanswer
from tests.model.zoo import hook_count
from tests.streaming.talking import Held, Say, endless, streams
from tests.streaming.ticking import Ticks, Waiting, hold_up, until

# What comes


async def test_an_awaited_stream_says_what_a_plain_one_says(begin: Any, abegin: Any) -> None:
    """The same tokens, scores and turn, by another door."""
    plain = begin()
    wanted = list(plain)
    stream: AsyncStream = abegin()
    tokens = [token async for token in stream]
    assert [t.token_id for t in tokens] == [t.token_id for t in wanted]
    for token, known in zip(tokens, wanted, strict=True):
        assert np.array_equal(token.scores.array, known.scores.array)
    assert stream.turn is not None
    assert stream.turn.text == plain.turn.text
    assert stream.trace.complete
    assert stream.alarms == []
    assert stream.plugin_failures == {}


async def test_a_context_manager_knows_the_trace_before_the_first_token(abegin: Any) -> None:
    """The prompt's scores come first, and a screen may want them."""
    async with abegin(logits_processor=[held := Held()]) as stream:
        held.hold_at(0)
        assert stream.trace.tokens[-1].offset == 0
        assert not stream.trace.turns
        held.let()
        assert len([token async for token in stream]) == 12
    assert stream.turn.finish_reason == "length"


async def test_nothing_runs_before_a_stream_begins(abegin: Any, model: Any) -> None:
    """A request may be refused after its stream was made."""
    hooks = hook_count(model)
    stream = abegin("")
    assert (hook_count(model), streams()) == (hooks, 0)
    assert (stream.turn, stream.alarms, stream.plugin_failures) == (None, [], {})
    with pytest.raises(UsageError, match="has not begun"):
        _ = stream.trace
    await stream.aclose()
    assert [token async for token in stream] == []
    assert streams() == 0


async def test_answers_in_one_open_watch_are_turns_of_one_session(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
) -> None:
    """A chat over a socket is one session; an interrupted reply does not end it."""
    hooks = hook_count(model)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        async with aanswer(watch, "one", logits_processor=endless()) as first:
            await anext(first)
        second = aanswer(watch, "two", max_new_tokens=4, logits_processor=endless(0))
        assert len([token async for token in second]) == 4
        assert hook_count(model) > hooks
    assert [turn.finish_reason for turn in watch.trace.turns] == ["cancelled", "length"]
    assert (first.turn, second.turn) == tuple(watch.trace.turns)
    assert hook_count(model) == hooks


async def test_a_slow_reader_gets_every_token_and_does_not_slow_the_model(abegin: Any) -> None:
    """What comes meanwhile is kept, at most as many tokens as a reply may have."""
    stream = abegin(logits_processor=endless(0), max_new_tokens=30)
    tokens = [await anext(stream)]
    assert await until(lambda: stream.turn is not None)
    tokens += [token async for token in stream]
    assert [token.offset for token in tokens] == list(range(30))


# The loop goes on


async def test_the_loop_goes_on_at_start_up(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
) -> None:
    """Banks are opened and prompts are encoded elsewhere."""
    async with Ticks() as ticks:
        hold_up(tiny_tokenizer, ticks.let_pass)
        async with emowatch.astream(model, tiny_tokenizer, "hi", probes=bank, max_new_tokens=2):
            pass
    assert ticks.passed >= 1


async def test_the_loop_goes_on_while_the_model_speaks(abegin: Any) -> None:
    """Each token here waits for the loop, which so cannot be waiting for it."""
    async with Ticks() as ticks:
        stream = abegin(logits_processor=[Waiting(ticks)], max_new_tokens=20)
        assert len([token async for token in stream]) == 20
    assert ticks.passed == 20


@pytest.mark.parametrize("how", ["aclose", "cancel", "with"])
async def test_the_loop_goes_on_while_a_stream_is_closed(abegin: Any, model: Any, how: str) -> None:
    """The token that the model is at is waited for, and others are served meanwhile."""
    hooks = hook_count(model)
    async with Ticks() as ticks:
        stream = abegin(logits_processor=[Waiting(ticks)], max_new_tokens=200)
        await anext(stream)
        passed = ticks.passed
        if how == "aclose":
            await stream.aclose()
        elif how == "with":
            async with stream:
                pass
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(stream)
        assert (hook_count(model), streams()) == (hooks, 0)
    assert passed <= ticks.passed <= passed + 2
    assert ticks.passed == stream.turn.reply_tokens, "no token failed for want of ticks"
    assert stream.turn.finish_reason == "cancelled"


# What goes wrong


@pytest.mark.parametrize("enter", [True, False])
@pytest.mark.parametrize(
    ("messages", "error", "words"),
    [
        ("", UsageError, "message is empty"),
        ("x" * 300, ContextError, "this model's context is 256"),
        ([{"role": "bard", "content": "hm"}], UsageError, "template refused the dialogue"),
    ],
)
async def test_a_prompt_that_is_refused_is_told_to_whoever_begins(
    abegin: Any, model: Any, enter: bool, messages: Any, error: Any, words: str
) -> None:
    """On entering, so that a server can still answer 400."""
    hooks = hook_count(model)
    stream = abegin(messages)
    with pytest.raises(error, match=words):
        await (stream.__aenter__() if enter else anext(stream))
    assert (hook_count(model), streams()) == (hooks, 0)
    assert [token async for token in stream] == []


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_an_exception_in_generation_reaches_whoever_waits(
    abegin: Any, model: Any, after: int
) -> None:
    """With the tokens that came before it."""
    hooks = hook_count(model)

    class Failing(Say):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            if self.step >= after:
                raise RuntimeError("lightning")
            return super().__call__(input_ids, scores)

    stream = abegin(logits_processor=[Failing([40], for_ever=True)])
    tokens: list[ReplyToken] = []
    with pytest.raises(RuntimeError, match="lightning"):
        async for token in stream:
            tokens.append(token)
    assert len(tokens) == after
    assert (hook_count(model), streams()) == (hooks, 0)
    assert stream.turn.finish_reason == "failed"


class Broken:
    """A plugin that fails in one hook."""

    name = "broken"

    def __init__(self, hook: str) -> None:
        """Choose the hook."""
        self._hook = hook

    def _fail_in(self, hook: str) -> None:
        if hook == self._hook:
            raise ValueError("thunder")

    @hookimpl
    def session_started(self) -> None:
        """Fail, or do nothing."""
        self._fail_in("session_started")

    @hookimpl
    def token_scored(self) -> None:
        """Fail, or do nothing."""
        self._fail_in("token_scored")

    @hookimpl
    def turn_finished(self) -> None:
        """Fail, or do nothing."""
        self._fail_in("turn_finished")

    @hookimpl
    def session_finished(self) -> None:
        """Fail, or do nothing."""
        self._fail_in("session_finished")


@pytest.mark.parametrize(
    "hook", ["session_started", "token_scored", "turn_finished", "session_finished"]
)
async def test_a_plugin_that_fails_reaches_whoever_waits_if_it_is_to(
    abegin: Any, model: Any, hook: str
) -> None:
    """Wherever in a session that is."""
    hooks = hook_count(model)
    stream = abegin(plugins=[Broken(hook)], on_plugin_error="raise")
    with pytest.raises(PluginError, match=f"failed in {hook}.*thunder"):
        async for _ in stream:
            pass
    assert (hook_count(model), streams()) == (hooks, 0)


async def test_a_session_that_does_not_open_is_told_on_entering(abegin: Any) -> None:
    """Its plugins are part of it."""
    plugins = [Broken("session_started")]
    with pytest.raises(PluginError, match="failed in session_started"):
        async with abegin(plugins=plugins, on_plugin_error="raise"):
            raise AssertionError("entered")


async def test_a_plugin_that_is_switched_off_is_counted(abegin: Any) -> None:
    """As in a plain stream."""
    stream = abegin(plugins=[Broken("token_scored")])
    assert len([token async for token in stream]) == 12
    assert stream.plugin_failures == {"broken": 1}


# Two at once


async def test_a_second_stream_of_a_speaking_model_is_refused_when_it_begins(
    abegin: Any, begin: Any
) -> None:
    """By whichever door; and the first goes on unharmed."""
    async with abegin(logits_processor=[held := Held()]) as first:
        with pytest.raises(UnsupportedError, match=r"a server puts an asyncio\.Lock around"):
            await anext(abegin())
        with pytest.raises(UnsupportedError, match="two replies at once"):
            async with abegin():
                pass
        with pytest.raises(UnsupportedError, match="two replies at once"):
            begin()
        held.let()
        assert len([token async for token in first]) == 12


async def test_requests_behind_a_lock_are_answered_one_after_the_other(
    abegin: Any, model: Any
) -> None:
    """The pattern of docs/serving.md; one that is given up while it waits never speaks."""
    hooks = hook_count(model)
    lock = asyncio.Lock()
    speaking = most = 0

    async def request(number: int) -> tuple[int, str]:
        nonlocal speaking, most
        async with lock, abegin(f"hello {number}", logits_processor=endless(0)) as stream:
            speaking += 1
            most = max(most, speaking)
            tokens = [token async for token in stream]
            speaking -= 1
        return len(tokens), stream.turn.finish_reason

    requests = [asyncio.create_task(request(number)) for number in range(8)]
    await asyncio.sleep(0)
    requests[5].cancel()
    found = await asyncio.gather(*requests, return_exceptions=True)
    assert isinstance(found.pop(5), asyncio.CancelledError)
    assert found == [(12, "length")] * 7
    assert most == 1
    assert (hook_count(model), streams()) == (hooks, 0)


async def test_every_task_that_waits_for_a_token_learns_of_the_end(abegin: Any) -> None:
    """The end is said once, and would wake one of them only."""
    stream = abegin(logits_processor=[held := Held()], max_new_tokens=1)
    tasks = [asyncio.ensure_future(anext(stream, None)) for _ in range(3)]
    await asyncio.sleep(0)
    held.let()
    tokens = await asyncio.gather(*tasks)
    assert sum(token is not None for token in tokens) == 1
