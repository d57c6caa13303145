"""Awaited streams that are left: by cancelling, by a break, by forgetting them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.streaming import AsyncStream
from tests.model.zoo import hook_count
from tests.streaming.talking import Forwards, Held, endless, streams, wait_for
from tests.streaming.ticking import hold_up, until


async def read(stream: AsyncStream) -> None:
    """Read to the end, as a request does."""
    async for _ in stream:
        pass


@pytest.mark.parametrize("token", [0, 1, 2, 7, 31])
async def test_a_reader_that_is_cancelled_stops_the_model_within_one_token(
    abegin: Any, model: Any, token: int
) -> None:
    """A client hangs up while its task waits: it ends when the hooks are gone, and not before."""
    hooks = hook_count(model)
    forwards = Forwards(model)
    stream = abegin(logits_processor=[held := Held()], max_new_tokens=200)
    task = asyncio.create_task(read(stream))
    await asyncio.to_thread(held.hold_at, token)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    assert hook_count(model) > hooks + 1
    held.let()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (hook_count(model), streams()) == (hooks + 1, 0)
    assert forwards.begun == token + 1
    assert (stream.turn.finish_reason, stream.turn.reply_tokens) == ("cancelled", token + 1)


async def test_cancelling_again_does_not_leave_the_hooks_behind(abegin: Any, model: Any) -> None:
    """anyio cancels over and over until a task has gone."""
    hooks = hook_count(model)
    stream = abegin(logits_processor=[held := Held()], max_new_tokens=200)
    task = asyncio.create_task(read(stream))
    await asyncio.to_thread(held.hold_at, 1)
    for _ in range(20):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    held.let()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (hook_count(model), streams()) == (hooks, 0)


@pytest.mark.parametrize("enter", [True, False])
async def test_a_reader_that_is_cancelled_at_start_up_lets_no_forward_begin(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank, enter: bool
) -> None:
    """Reading the prompt of somebody who has gone may take longer than all the rest."""
    hooks = hook_count(model)
    forwards = Forwards(model)
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        assert go_on.wait(60)

    hold_up(tiny_tokenizer, wait)
    stream = emowatch.astream(model, tiny_tokenizer, "hello", probes=bank)
    task = asyncio.ensure_future(stream.__aenter__() if enter else anext(stream))
    assert await until(asked.is_set)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (hook_count(model), streams()) == (hooks + 1, 0)
    assert forwards.begun == 0
    assert stream.turn is None


async def test_a_timeout_reads_as_a_timeout(abegin: Any, model: Any) -> None:
    """The model is stopped and the cause stays what it was."""
    hooks = hook_count(model)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await read(abegin(logits_processor=endless(), max_new_tokens=200))
    assert (hook_count(model), streams()) == (hooks, 0)


async def test_a_failing_task_beside_it_stops_a_stream(abegin: Any, model: Any) -> None:
    """A task group cancels all of its tasks when one of them fails."""
    hooks = hook_count(model)
    stream = abegin(logits_processor=endless(), max_new_tokens=200)

    async def fail() -> None:
        await anext(stream)
        raise ValueError("the other one")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(read(stream))
    assert [str(error) for error in caught.value.exceptions] == ["the other one"]
    assert (hook_count(model), streams()) == (hooks, 0)


async def test_leaving_a_with_block_early_waits_for_the_hooks_to_be_gone(
    abegin: Any, model: Any
) -> None:
    """So that the next request finds the model as it was."""
    hooks = hook_count(model)
    async with abegin(logits_processor=endless(), max_new_tokens=200) as stream:
        async for token in stream:
            if token.offset == 2:
                break
    assert (hook_count(model), streams()) == (hooks, 0)
    assert stream.turn.finish_reason == "cancelled"


async def test_an_exception_of_the_readers_stops_the_model_and_stays_what_it_was(
    abegin: Any, model: Any
) -> None:
    """A socket that cannot be written to raises where the token is sent."""
    hooks = hook_count(model)
    with pytest.raises(ConnectionResetError):
        async with abegin(logits_processor=endless(), max_new_tokens=200) as stream:
            async for _ in stream:
                raise ConnectionResetError
    assert (hook_count(model), streams()) == (hooks, 0)


async def test_breaking_off_a_bare_loop_stops_the_model(abegin: Any, model: Any) -> None:
    """A `break` cannot wait; the hooks go with the token that the model is at."""
    hooks = hook_count(model)
    forwards = Forwards(model)
    stream = abegin(logits_processor=[held := Held()], max_new_tokens=200)
    held.let(3)
    async for token in stream:
        if token.offset == 2:
            break
    begun = forwards.begun
    held.let()
    assert await until(lambda: not streams())
    assert forwards.begun <= begun + 1
    assert hook_count(model) == hooks + 1
    assert stream.turn.finish_reason == "cancelled"


async def test_a_stream_may_follow_at_once_on_one_that_was_broken_off(abegin: Any) -> None:
    """It waits for the token that the model is at."""
    async for _ in abegin(logits_processor=endless(), max_new_tokens=200):
        break
    assert len([token async for token in abegin(logits_processor=endless(0))]) == 12


async def test_an_awaited_stream_that_is_dropped_stops_the_model(abegin: Any, model: Any) -> None:
    """Without close, without a loop."""
    hooks = hook_count(model)
    stream = abegin(logits_processor=[held := Held()], max_new_tokens=200)
    await stream.__aenter__()
    trace = stream.trace
    await asyncio.to_thread(held.hold_at, 0)
    del stream
    held.let()
    assert await until(lambda: not streams())
    assert hook_count(model) == hooks
    assert trace.turns[0].finish_reason == "cancelled"


async def test_closing_twice_and_after_the_end_changes_nothing(abegin: Any) -> None:
    """A server closes in a `finally`, whatever was before."""
    stream = abegin(logits_processor=endless(0))
    await read(stream)
    await stream.aclose()
    await stream.aclose()
    assert stream.turn.finish_reason == "length"
    assert [token async for token in stream] == []


async def test_a_cancelled_stream_still_gives_what_was_made(abegin: Any) -> None:
    """`cancel` is for a stop button: the reader goes on to the end."""
    stream = abegin(logits_processor=[held := Held()], max_new_tokens=200)
    async with stream:
        await asyncio.to_thread(held.hold_at, 3)
        stream.cancel()
        held.let()
        assert len([token async for token in stream]) == 4
    assert stream.turn.finish_reason == "cancelled"


def test_a_stream_outlives_its_loop_by_no_more_than_a_token(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
) -> None:
    """The worker finds nobody to tell, which is no error of anybody's."""
    hooks = hook_count(model)
    stream = emowatch.astream(
        model,
        tiny_tokenizer,
        "hello",
        probes=bank,
        max_new_tokens=200,
        logits_processor=[held := Held()],
    )
    asyncio.run(stream.__aenter__())
    held.hold_at(0)
    held.let()
    assert wait_for(lambda: not streams())
    assert hook_count(model) == hooks
    assert stream.turn is not None
    assert stream.turn.finish_reason == "cancelled"
    assert stream.turn.reply_tokens <= 2
