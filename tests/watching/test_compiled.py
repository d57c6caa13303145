"""Compiled models: watched by the same law where transformers compiles, and never in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast
from transformers.generation.streamers import BaseStreamer

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import TapError, UnsupportedError
from emowatch.records import Steering
from emowatch.streaming import WatchStreamer
from tests.model.zoo import BLOCKS, hook_count, make_model, random_ids
from tests.watching.modes import Said, compiled
from tests.watching.speaking import NEW, PROMPT, Plugin, bank_for, speak
from tests.watching.test_law import check_law


@pytest.fixture(autouse=True)
def forget_compiled_code() -> None:
    """Let no test find code that another one compiled."""
    torch.compiler.reset()


def say(model: Any, ids: Any) -> Said:
    """Speak under compiled code."""
    return Said(speak(model, ids, **compiled()), torch.ones(1, ids.shape[1]))


def test_a_model_that_was_compiled_before_is_traced_again(model: Any, bank: ProbeBank) -> None:
    """Compiled code does not notice hooks that come later; left alone, it would read nothing."""
    ids = random_ids(1, PROMPT)
    before, hooks = say(model, ids), hook_count(model)
    for _ in range(2):  # and again after a watch has come and gone
        with emowatch.watch(model, None, probes=bank, layers="all") as watch:
            assert torch.equal(say(model, ids).sequences, before.sequences)
        assert hook_count(model) == hooks
    assert torch.equal(say(model, ids).sequences, before.sequences)
    check_law(model, bank, before, watch.trace)


def test_two_turns_run_the_same_code(model: Any, bank: ProbeBank) -> None:
    """The buffer stays where it is, so that nothing is compiled again."""
    counted = []
    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        for seed in (1, 2, 3):
            said = say(model, random_ids(1, PROMPT, seed))
            counted.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    check_law(model, bank, said, watch.trace)
    assert counted[0] == counted[1] == counted[2] >= 1


def test_a_model_that_was_compiled_before_is_read_after_its_last_block_too(model: Any) -> None:
    """There a hook reads, which compiled code does not notice (pytorch #117758)."""
    bank, ids = bank_for(model, layers=(BLOCKS,)), random_ids(1, PROMPT)
    said = say(model, ids)
    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        assert torch.equal(say(model, ids).sequences, said.sequences)
    assert [token.offset for token in watch.trace.reply()] == list(range(NEW))
    assert not np.isnan(watch.trace.tokens.array()).any()


@pytest.mark.parametrize("part", ["lm_head", "model.layers.1"])
def test_a_part_that_is_compiled_under_watch_is_refused_at_the_next_turn(
    model: Any, bank: ProbeBank, part: str
) -> None:
    """Its states might be overwritten before they are scored."""
    with emowatch.watch(model, None, probes=bank):
        speak(model, random_ids(1, PROMPT))
        model.get_submodule(part).compile(backend="eager")
        with pytest.raises(UnsupportedError, match=f"{part} is compiled"):
            speak(model, random_ids(1, PROMPT))


def test_what_is_kept_uncompiled_on_purpose_is_watched(model: Any, bank: ProbeBank) -> None:
    """`torch.compiler.disable` leaves the mark of a compiled function."""
    block = model.model.layers[1]
    block.forward = torch.compiler.disable(block.forward)
    with emowatch.watch(model, None, probes=bank) as watch:
        speak(model, random_ids(1, PROMPT))
    assert [token.offset for token in watch.trace.reply()] == list(range(NEW))


def test_code_that_does_not_read_a_layer_is_found_out(model: Any, bank: ProbeBank) -> None:
    """Whatever made it so: there are no scores of states that nobody read."""

    class Meddler(BaseStreamer):  # type: ignore[misc, unused-ignore]  # untyped before 5
        """Gives a block its own forward back once code has been compiled."""

        heard = 0

        def put(self, value: Any) -> None:
            self.heard += 1
            if self.heard == 4:
                del vars(model.model.layers[1])["forward"]

        def end(self) -> None: ...

    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        with pytest.raises(TapError, match="were not read in the code"):
            speak(model, random_ids(1, PROMPT), streamer=Meddler(), **compiled())
    assert [t.offset for t in watch.trace.reply()] == [0, 1, 2]


def test_code_that_was_compiled_for_a_watch_is_not_run_after_it(
    model: Any, bank: ProbeBank
) -> None:
    """It would go on writing states that nobody takes."""
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        said = say(model, ids)
    counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert torch.equal(say(model, ids).sequences, said.sequences)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > counted
    check_law(model, bank, said, watch.trace)


def test_a_second_model_is_compiled_while_the_first_is_watched(model: Any, bank: ProbeBank) -> None:
    """As its watch begins, what was compiled for the first may be dropped, and is made again."""
    ids, other = random_ids(1, PROMPT), make_model("llama", seed=1)
    other_bank = bank_for(other)
    said = say(other, ids)  # compiled before it is watched
    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        first = say(model, ids)
        with emowatch.watch(other, None, probes=other_bank, layers="all") as inner:
            assert torch.equal(say(other, ids).sequences, said.sequences)
        assert torch.equal(say(model, ids).sequences, first.sequences)
    check_law(other, other_bank, said, inner.trace)
    check_law(model, bank, first, watch.trace)


def test_each_token_is_told_to_a_streamer_with_its_score(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Before transformers 5 a streamer hears of a token before the stopping criteria do."""
    told: list[int] = []
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        streamer = WatchStreamer(watch, on_token=lambda token: told.append(token.offset))
        speak(model, random_ids(1, PROMPT), streamer=streamer, **compiled())
    assert told == list(range(NEW))


def test_compiled_code_is_not_steered(model: Any, bank: ProbeBank) -> None:
    """An addition that comes and goes would be compiled for again and again."""
    plugin = Plugin(steer=lambda _: Steering(direction="joy", layer=1, strength=2.0))
    with (
        pytest.raises(
            UnsupportedError, match="Could not steer token by token under a compiled forward"
        ),
        emowatch.watch(model, None, probes=bank, plugins=[plugin]),
    ):
        say(model, random_ids(1, PROMPT))


@pytest.mark.parametrize("way", ["model.compile", "model.forward", "a block", "torch.compile"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_was_compiled_by_hand_is_refused(model: Any, bank: ProbeBank, way: str) -> None:
    """Some of these would be read, some not; none is guessed at."""
    if way == "model.compile":
        model.compile(backend="eager")
    elif way == "model.forward":
        model.forward = torch.compile(model.forward, backend="eager")
    elif way == "a block":
        model.model.layers[1] = torch.compile(model.model.layers[1], backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    with pytest.raises(UnsupportedError, match="compiled"):
        emowatch.watch(model, None, probes=bank)


@pytest.mark.parametrize("way", ["model.compile", "model.forward"])
def test_what_is_compiled_under_watch_is_refused(model: Any, bank: ProbeBank, way: str) -> None:
    """The hooks are there when it is traced, and say so before any state is missed."""
    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        if way == "model.compile":
            model.compile(backend="eager")
        else:
            model.forward = torch.compile(model.forward, backend="eager")
        with pytest.raises(UnsupportedError, match="compiled while it was watched"):
            speak(model, random_ids(1, PROMPT))
    assert not len(watch.trace.tokens)


@pytest.mark.soak
def test_the_law_holds_in_inductor_code(model: Any, bank: ProbeBank) -> None:
    """The compiler that people use; it takes a minute to build what runs in milliseconds."""
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        output = speak(model, ids, **compiled("inductor"))
    check_law(model, bank, Said(output, torch.ones(1, PROMPT)), watch.trace)
