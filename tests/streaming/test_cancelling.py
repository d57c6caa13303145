"""Cancelling: at most one forward more, whoever stops listening and however."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import UnsupportedError
from emowatch.streaming import answer
from tests.model.zoo import hook_count, make_model
from tests.streaming.talking import Forwards, Held, endless, streams, wait_for

# Within one token


@pytest.mark.parametrize("token", [0, 1, 2, 7, 31])
def test_no_forward_begins_after_the_one_that_a_cancel_meets(
    begin: Any, model: Any, token: int
) -> None:
    """Its token still comes: it is made, and it has a score."""
    forwards, held = Forwards(model), Held()
    stream = begin(logits_processor=[held], max_new_tokens=100)
    held.hold_at(token)
    stream.cancel()
    held.let()
    assert len(list(stream)) == forwards.begun == token + 1
    assert stream.turn.finish_reason == "cancelled"


@pytest.mark.parametrize("token", [1, 2, 7, 31])
def test_a_cancel_between_two_forwards_lets_one_more_begin(
    begin: Any, model: Any, token: int
) -> None:
    """Transformers 5 asks whether to stop before it tells of a token, so one may be on its way."""
    forwards, held = Forwards(model), Held()

    class Cancelling:
        told = 0

        def put(self, value: Tensor) -> None:
            self.told += value.ndim == 1
            if self.told == token:
                stream.cancel()

        def end(self) -> None: ...

    stream = begin(logits_processor=[held], max_new_tokens=100, streamer=Cancelling())
    held.let()
    assert len(list(stream)) == forwards.begun <= token + 1
    assert stream.turn.finish_reason == "cancelled"


@pytest.mark.soak
def test_a_stream_can_be_cancelled_at_each_of_its_first_200_tokens(begin: Any, model: Any) -> None:
    """At none of them is there a state in which it cannot."""
    hooks = hook_count(model)
    for token in range(200):
        held = Held()
        stream = begin(logits_processor=[held], max_new_tokens=220)
        held.hold_at(token)
        stream.cancel()
        held.let()
        assert len(list(stream)) == token + 1
        assert stream.turn.reply_tokens == len(stream.trace.reply()) == token + 1
        assert (hook_count(model), streams()) == (hooks, 0)


def test_a_prompt_is_not_read_for_whoever_has_gone(begin: Any, model: Any) -> None:
    """A long one takes seconds."""
    forwards = Forwards(model)
    first = begin(logits_processor=[held := Held()])
    held.hold_at(0)
    first.cancel()
    second = begin()  # waits for the first, which is held
    second.cancel()
    held.let()
    assert list(second) == []
    assert forwards.begun == 1
    assert not second.trace.turns


# A stream that nobody holds any more


def test_a_stream_that_is_dropped_stops_the_model(begin: Any, model: Any) -> None:
    """Without close, without a loop: an exception elsewhere does that."""
    hooks = hook_count(model)
    stream = begin(logits_processor=[held := Held()], max_new_tokens=200)
    held.hold_at(3)
    trace, alive = stream.trace, weakref.ref(stream)
    del stream
    assert alive() is None, "the worker must not hold its stream"
    held.let()
    assert wait_for(lambda: not streams())
    assert hook_count(model) == hooks
    (turn,) = trace.turns
    assert (turn.finish_reason, turn.reply_tokens) == ("cancelled", 4)


def test_a_stream_in_a_cycle_stops_the_model_when_it_is_collected(begin: Any) -> None:
    """Objects of a web framework often hold each other."""
    stream = begin(logits_processor=[held := Held()], max_new_tokens=200)
    held.hold_at(0)
    trace = stream.trace
    cycle: list[Any] = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()
    held.let()
    assert wait_for(lambda: not streams())
    assert trace.turns[0].finish_reason == "cancelled"


# Two at once


def test_a_second_stream_of_a_speaking_model_is_refused_at_once(begin: Any, model: Any) -> None:
    """Each would be given the other's states; and the first goes on unharmed."""
    first = begin(logits_processor=[held := Held()], max_new_tokens=6)
    held.hold_at(2)
    hooks = hook_count(model)
    with pytest.raises(UnsupportedError, match="two replies at once from one LlamaForCausalLM"):
        begin()
    assert (hook_count(model), streams()) == (hooks, 1)
    held.let()
    assert [token.offset for token in first] == list(range(6))
    assert first.turn.finish_reason == "length"


def test_a_second_answer_in_one_watch_is_refused_as_well(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
) -> None:
    """It would end the first one's turn."""
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with answer(watch, "one", logits_processor=[held := Held()]) as first:
            held.hold_at(1)
            with pytest.raises(UnsupportedError, match="two replies at once"):
                answer(watch, "two")
            first.cancel()
            held.let()


def test_a_stream_waits_for_one_that_was_cancelled(begin: Any) -> None:
    """Somebody who breaks off and asks again must not be refused for the token in between."""
    first = begin(logits_processor=[held := Held()], max_new_tokens=100)
    held.hold_at(1)
    first.cancel()
    second = begin(logits_processor=endless(0), max_new_tokens=4)
    assert not second.trace.turns
    held.let()
    assert len(list(second)) == 4
    assert len(list(first)) == 2
    assert (first.turn.finish_reason, second.turn.finish_reason) == ("cancelled", "length")


def test_two_models_speak_at_once(begin: Any, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Only one and the same is refused."""
    first = begin(logits_processor=[held := Held()], max_new_tokens=4)
    held.hold_at(1)
    other = make_model("llama", seed=1)
    bank = ProbeBank.random_for(other, labels=("a", "b"), name="other")
    second = emowatch.stream(
        other, tiny_tokenizer, "hi", probes=bank, max_new_tokens=4, logits_processor=endless(0)
    )
    assert len(list(second)) == 4
    held.let()
    assert len(list(first)) == 4


def test_a_stream_inside_its_own_stream_is_refused_and_does_not_wait_for_itself(
    begin: Any,
) -> None:
    """Also when it was cancelled, and a second one would be let wait."""

    class Nested:
        def put(self, value: Tensor) -> None:
            if value.ndim == 1:
                stream.cancel()
                begin()

        def end(self) -> None: ...

    stream = begin(logits_processor=[held := Held()], streamer=Nested())
    held.let()
    with pytest.raises(UnsupportedError, match="two replies at once"):
        list(stream)
    assert stream.turn.finish_reason == "failed"
