"""However a generation breaks off, in whatever family: no hook stays, and the model is unharmed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.records import TokenScore
from tests.model.zoo import FAMILIES, PATHS, fail, hook_count, make_model, random_ids
from tests.watching.speaking import NEW, PROMPT, Plugin, bank_for, speak

STEP = 2
"""The reply token at which it breaks off, where that is not in the prompt."""
Break = Callable[[Any, Any, PreTrainedTokenizerFast], None]


def in_forward(number: int) -> Break:
    """Let the last block fail in a forward, as when memory runs out."""

    def run(model: Any, bank: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        last = model.get_submodule(PATHS[model.family])[-1]
        left = [number]

        def count(*_: Any, **__: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                fail()

        handle = last.register_forward_hook(count)
        try:
            with pytest.raises(RuntimeError, match="lightning"):
                with emowatch.watch(model, tokenizer, probes=bank, layers="all") as watch:
                    speak(model, random_ids(1, PROMPT))
        finally:
            handle.remove()
        # What was read before it has its scores, and the turn says how it ended.
        assert [t.offset for t in watch.trace.tokens if t.offset is not None] == list(range(number))
        assert [t.finish_reason for t in watch.trace.turns] == ["failed"] * bool(number)

    return run


def in_plugin(model: Any, bank: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let a plugin fail that may."""

    def judge(score: TokenScore) -> None:
        if score.offset == STEP:
            fail()

    plugin = Plugin(judge=judge)
    watch = emowatch.watch(model, tokenizer, probes=bank, plugins=[plugin], on_plugin_error="raise")
    with pytest.raises(Exception, match="lightning"), watch:
        speak(model, random_ids(1, PROMPT))


def by_hand(model: Any, bank: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Press Ctrl+C between two steps."""

    def interrupt(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] == PROMPT + STEP:
            raise KeyboardInterrupt
        return scores

    with pytest.raises(KeyboardInterrupt):
        with emowatch.watch(model, tokenizer, probes=bank) as watch:
            speak(model, random_ids(1, PROMPT), logits_processor=[interrupt])
    assert [t.finish_reason for t in watch.trace.turns] == ["failed"]


def by_leaving(model: Any, bank: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Stop listening to a stream."""
    with emowatch.stream(
        model, tokenizer, "one", probes=bank, max_new_tokens=200, eos_token_id=None
    ) as stream:
        next(iter(stream))
    assert stream.turn is not None
    assert stream.turn.finish_reason == "cancelled"


BREAKS: dict[str, Break] = {
    "in the prompt": in_forward(0),
    "at a step": in_forward(STEP),
    "in a plugin": in_plugin,
    "by hand": by_hand,
    "by leaving": by_leaving,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # transformers' own, on rare families
def test_a_generation_that_breaks_off_leaves_the_model_as_it_was(
    family: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """It says afterwards, to the bit, what it said before."""
    model = make_model(family)
    model.family = family
    bank, ids = bank_for(model), random_ids(1, PROMPT)
    before = speak(model, ids, eos_token_id=None)
    assert before.shape[1] == PROMPT + NEW
    hooks = hook_count(model)
    for break_off in BREAKS.values():
        break_off(model, bank, tiny_tokenizer)
        assert hook_count(model) == hooks
        assert torch.equal(speak(model, ids, eos_token_id=None), before)
