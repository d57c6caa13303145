"""Ways to run a model: what cannot be followed is refused in words and spoils nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch import Tensor
from transformers import PreTrainedTokenizerFast, StaticCache
from transformers.generation.streamers import BaseStreamer

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import UnsupportedError
from tests.model.zoo import hook_count, left_padded, make_model, random_ids
from tests.watching.speaking import NEW, PROMPT, speak


def assisted(model: Any) -> dict[str, Any]:
    """Ask for assisted decoding."""
    return {"assistant_model": make_model("llama", seed=1)}


REFUSED: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "beams": (lambda model: {"num_beams": 2}, "Could not watch beam search"),
    "assisted": (assisted, "Could not watch assisted decoding"),
    "look-up": (lambda model: {"prompt_lookup_num_tokens": 2}, "assisted decoding or prompt look"),
    "no cache": (lambda model: {"use_cache": False}, "use_cache=False"),
    "chunks": (lambda model: {"prefill_chunk_size": 3}, "prefill_chunk_size"),
    "static": (lambda model: {"cache_implementation": "static"}, "='static'|static caches prepare"),
    "static cache": (
        lambda model: {"past_key_values": StaticCache(config=model.config, max_cache_len=32)},
        "with a StaticCache: transformers compiles it|static caches prepare",
    ),
}


@pytest.mark.parametrize("mode", REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning")  # transformers' own, on rare modes
def test_a_mode_that_cannot_be_followed_is_refused_in_words(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, mode: str
) -> None:
    """A score for the wrong token is worse than none."""
    options, sentence = REFUSED[mode]
    hooks = hook_count(model)
    asked = options(model)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with pytest.raises(UnsupportedError, match=sentence):
            speak(model, random_ids(1, PROMPT), **asked)
    assert len(watch.trace.tokens) == 0
    assert hook_count(model) == hooks


def test_a_forward_outside_generate_is_refused(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Nobody can say where its prompt ends."""
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with pytest.raises(UnsupportedError, match=r"does not come from model\.generate"):
            model(random_ids(1, PROMPT))
        speak(model, random_ids(1, PROMPT))
    assert len(watch.trace.turns) == 1


def test_a_batch_that_is_padded_on_the_right_is_refused(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The reply would follow padding, and its states with it."""
    ids, mask = left_padded((4, PROMPT))
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with pytest.raises(UnsupportedError, match=r'tokenizer\.padding_side = "left"'):
            speak(model, ids.flip(1), mask.flip(1))
    assert not watch.trace.turns


def test_two_generations_at_once_on_one_watch_are_refused(model: Any, bank: ProbeBank) -> None:
    """Their forwards would be taken for each other's, and one user's words for another's."""
    ids, other = random_ids(1, PROMPT), random_ids(1, PROMPT - 2)

    class Interrupting(BaseStreamer):
        """Starts another generation in the midst of the first."""

        calls = 0

        def put(self, value: Tensor) -> None:
            self.calls += 1
            if self.calls == 3:
                speak(model, other)

        def end(self) -> None:
            pass

    before = hook_count(model)
    with (
        pytest.raises(UnsupportedError, match="two generations at once"),
        emowatch.watch(model, None, probes=bank),
    ):
        speak(model, ids, streamer=Interrupting())
    assert hook_count(model) == before


def test_a_generation_that_failed_in_another_thread_is_over(model: Any, bank: ProbeBank) -> None:
    """Its thread lives on, as a server's worker does, and the next one is scored."""
    ids = random_ids(1, PROMPT)

    class Broken(BaseStreamer):
        """Breaks a block once the prompt has been read."""

        def put(self, value: Tensor) -> None:
            def fail(*_: Any) -> None:
                handle.remove()
                raise RuntimeError("out of memory")

            handle = model.model.layers[1].register_forward_pre_hook(fail)

        def end(self) -> None:
            pass

    with ThreadPoolExecutor(1) as thread, emowatch.watch(model, None, probes=bank) as watch:
        with pytest.raises(RuntimeError, match="out of memory"):
            thread.submit(speak, model, ids, streamer=Broken()).result(60)
        speak(model, ids)
    assert len(watch.trace.reply()) == NEW
