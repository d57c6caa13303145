"""Ways to run a model: what is followed but has no law of its own, and what is refused."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedTokenizerFast
from transformers.generation.streamers import BaseStreamer

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import UnsupportedError
from emowatch.records import Steering
from tests.model.zoo import OLD, fail, hook_count, left_padded, make_model, random_ids
from tests.watching.speaking import NEW, PROMPT, Plugin, bank_for, speak


def own_decoding(model: Any, input_ids: Tensor, **_: Any) -> Tensor:
    """Decode as nobody else does."""
    model(input_ids)
    return input_ids


def next_turn_assisted(model: Any) -> dict[str, Any]:
    """Go on from the cache of another turn with candidates."""
    cache = DynamicCache(config=model.config)
    model(random_ids(1, PROMPT - 2), past_key_values=cache)
    return {"past_key_values": cache, "prompt_lookup_num_tokens": 2}


REFUSED: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "own": (
        lambda model: {"custom_generate": own_decoding},
        "a decoding loop that is not one of transformers' own",
    ),
}
if OLD:
    REFUSED["chunks"] = (
        lambda model: {"prefill_chunk_size": 3},
        "read in chunks.* leave prefill_chunk_size out",
    )
else:  # before 5 it went on from a cache as it should
    REFUSED["assisted from a cache"] = (
        next_turn_assisted,
        "reads 7 tokens after the 5 in the cache, but the text has 7",
    )


@pytest.mark.parametrize("mode", REFUSED)
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


@pytest.mark.skipif(OLD, reason="continuous batching needs an accelerator before transformers 5")
def test_continuous_batching_is_refused_in_the_answer_of_each_request(
    model: Any, bank: ProbeBank
) -> None:
    """Its worker catches what is raised and hands it out as the request's error."""
    config = GenerationConfig(max_new_tokens=3, do_sample=False)
    # Left alone, its cache takes most of the machine's memory.
    small = transformers.ContinuousBatchingConfig(num_blocks=4, max_batch_tokens=64)
    with emowatch.watch(model, None, probes=bank) as watch:
        answers = model.generate_batch(
            inputs=[[5, 6, 7], [9, 10]],
            generation_config=config,
            continuous_batching_config=small,
            progress_bar=False,
        )
    assert len(answers) == 2
    for one in answers.values():
        assert one.error.startswith("Could not watch generate_batch: continuous batching packs")
    assert not len(watch.trace.tokens)


def test_an_assistant_is_refused_and_the_model_it_drafts_for_is_named(bank: ProbeBank) -> None:
    """Its tokens are nobody's until the other model has accepted them."""
    model, assistant = make_model("llama"), make_model("llama", seed=1)
    with emowatch.watch(assistant, None, probes=bank_for(assistant)) as watch:
        with pytest.raises(UnsupportedError, match="Watch the model that generate was called on"):
            speak(model, random_ids(1, PROMPT), assistant_model=assistant)
    assert not len(watch.trace.tokens)


def test_a_quantised_cache_is_read_as_the_model_reads_it(model: Any, bank: ProbeBank) -> None:
    """Its states differ from those of a forward over the text, and are the ones that spoke."""
    options: dict[str, Any] = {
        "cache_implementation": "quantized",
        "cache_config": {"backend": "quanto", "residual_length": 4, "q_group_size": 8},
        "max_new_tokens": 12,
    }
    ids = random_ids(1, PROMPT)
    wanted = speak(model, ids, output_hidden_states=True, return_dict_in_generate=True, **options)
    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        assert torch.equal(speak(model, ids, **options), wanted.sequences)
    reply = watch.trace.reply()
    assert len(reply) == len(wanted.hidden_states) == 12
    for offset, (score, hidden) in enumerate(zip(reply, wanted.hidden_states, strict=True)):
        states = torch.stack([layer[:, -1] for layer in hidden]).detach()
        expected = bank.heads.scores(states, offset)[:, 0].numpy()
        assert score.layer_scores is not None
        assert np.allclose(score.layer_scores, expected, atol=1e-6)


# Own loops


def test_a_mask_of_another_form_is_refused(model: Any, bank: ProbeBank) -> None:
    """Padding cannot be told from it; `generate` says elsewhere what is padding."""
    with emowatch.watch(model, None, probes=bank) as watch:
        with pytest.raises(UnsupportedError, match=r"not \[rows, columns\]"):
            model(random_ids(1, 3), attention_mask=torch.zeros(1, 1, 3, 3))
    assert not len(watch.trace.tokens)


@torch.no_grad()
def test_two_talks_in_one_own_loop_are_not_taken_for_one(model: Any, bank: ProbeBank) -> None:
    """Their forwards alternate and look alike; their caches tell them apart."""
    caches = [DynamicCache(config=model.config) for _ in range(2)]
    with emowatch.watch(model, None, probes=bank) as watch:
        for seed, cache in enumerate(caches):
            model(random_ids(1, PROMPT, seed), past_key_values=cache)
        for token, cache in ((40, caches[0]), (41, caches[1]), (42, caches[1])):
            model(torch.tensor([[token]]), past_key_values=cache)
    turns = watch.trace.turns
    # The first talk is taken up again in a turn of its own, whose prompt is the one new token.
    assert [turn.prompt_tokens for turn in turns] == [PROMPT, PROMPT, PROMPT + 1, PROMPT + 1]
    assert [turn.token_ids for turn in turns] == [(), (), (), (42,)]


@torch.no_grad()
def test_a_forward_over_a_text_is_a_prompt(model: Any, bank: ProbeBank) -> None:
    """Its last state speaks of the token that would come next."""
    ids = random_ids(2, PROMPT)
    with emowatch.watch(model, None, probes=bank) as watch:
        model(ids)
    for row in range(2):
        mine = [t for t in watch.trace.tokens if t.sequence == row]
        assert [t.offset for t in mine] == [None] * (PROMPT - 1) + [0]
    assert [turn.token_ids for turn in watch.trace.turns] == [(), ()]


@torch.no_grad()
def test_an_own_loop_is_steered_in_its_reply_alone(model: Any, bank: ProbeBank) -> None:
    """What one turn asked for is gone before the next prompt is read."""
    push = Steering(direction="joy", layer=1, strength=4.0)
    prompt = random_ids(1, PROMPT)
    plain = model(prompt, output_hidden_states=True).hidden_states[2]
    read: list[Tensor] = []
    hook = model.model.layers[2].register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with emowatch.watch(model, None, probes=bank, plugins=[Plugin(steer=lambda score: push)]):
        for _ in range(2):
            output = model(prompt)
            model(torch.tensor([[40]]), past_key_values=output.past_key_values)
    hook.remove()
    unsteered = model(
        torch.tensor([[40]]),
        past_key_values=model(prompt).past_key_values,
        output_hidden_states=True,
    ).hidden_states[2]
    assert torch.equal(read[0], plain) and torch.equal(read[2], plain)
    assert torch.equal(read[1], read[3])
    assert not torch.allclose(read[1], unsteered, atol=1e-2)


def test_a_mask_that_leaves_out_the_cache_is_refused(model: Any, bank: ProbeBank) -> None:
    """Padding before the new tokens could not be told."""
    cache = DynamicCache(config=model.config)
    with emowatch.watch(model, None, probes=bank):
        model(random_ids(1, PROMPT), past_key_values=cache)
        with pytest.raises(UnsupportedError, match="has 3 columns where its text has 10"):
            mask = torch.ones(1, 3, dtype=torch.long)
            model(random_ids(1, 3), attention_mask=mask, past_key_values=cache)


@torch.no_grad()
def test_an_own_loop_in_a_function_of_any_name_is_followed(model: Any, bank: ProbeBank) -> None:
    """A web view is called `put` where it answers PUT, and so is what a streamer is given by."""

    def put(ids: Tensor) -> None:
        output = model(ids)
        model(torch.tensor([[40]]), past_key_values=output.past_key_values)

    with emowatch.watch(model, None, probes=bank) as watch:
        put(random_ids(1, PROMPT))
    assert [t.offset for t in watch.trace.reply()] == [0, 1]


@torch.no_grad()
def test_steering_an_own_loop_without_a_cache_is_refused(model: Any, bank: ProbeBank) -> None:
    """It would reach the prompt, which was read unsteered."""
    push = Steering(direction="joy", layer=1, strength=4.0)
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, None, probes=bank, plugins=[Plugin(steer=lambda _: push)]):
        model(ids, use_cache=False)
        with pytest.raises(UnsupportedError, match="reads its whole text again"):
            model(torch.cat([ids, ids[:, :1]], 1), use_cache=False)


# Others who call the model


def test_a_plugin_may_ask_the_model(model: Any, bank: ProbeBank) -> None:
    """What it asks is none of the reply."""
    asked = random_ids(1, 4)
    with emowatch.watch(model, None, probes=bank) as alone:
        wanted = speak(model, random_ids(1, PROMPT))
    plugin = Plugin(judge=lambda _: model(asked) and None)
    with emowatch.watch(
        model, None, probes=bank, plugins=[plugin], on_plugin_error="raise"
    ) as watch:
        assert torch.equal(speak(model, random_ids(1, PROMPT)), wanted)
    assert len(watch.trace.tokens) == len(alone.trace.tokens)
    for found, known in zip(watch.trace.tokens, alone.trace.tokens, strict=True):
        assert (found.position, found.offset) == (known.position, known.offset)
        assert np.allclose(found.scores.array, known.scores.array, atol=1e-6)  # scored together


def test_a_wrapper_is_not_watched_in_silence(model: Any, bank: ProbeBank) -> None:
    """It runs what it wraps, and its own hooks never fire."""

    class Wrapper(torch.nn.Module):
        """Hands on what it is asked."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model
            self.config = model.config

        def generate(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner.generate(*args, **kwargs)

        def get_input_embeddings(self) -> Any:
            return self.inner.get_input_embeddings()

    wrapper = Wrapper()
    with emowatch.watch(wrapper, None, probes=bank) as watch:
        with pytest.raises(UnsupportedError, match="a wrapper runs what it wraps"):
            speak(wrapper, random_ids(1, PROMPT))
    assert not len(watch.trace.tokens)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
def test_a_model_with_adapters_is_watched(model: Any) -> None:
    """peft wraps the model and lays its adapters into it."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(model, config)
    bank = bank_for(adapted.get_base_model())
    before = speak(adapted, input_ids := random_ids(1, PROMPT))
    with emowatch.watch(adapted, None, probes=bank) as watch:
        assert torch.equal(speak(adapted, input_ids), before)
    assert [t.offset for t in watch.trace.reply()] == list(range(NEW))


# Steering


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_cache": False}, "use_cache=False"),
        ({"num_beams": 2}, "beam search"),
        ({"prompt_lookup_num_tokens": 2}, "assisted decoding"),
    ],
)
def test_steering_is_refused_where_it_would_reach_other_tokens(
    model: Any, bank: ProbeBank, options: dict[str, Any], named: str
) -> None:
    """A wish of strength 0 is none, so that a governor that has nothing to do may listen."""
    strength = 0.0
    plugin = Plugin(steer=lambda _: Steering(direction="joy", layer=1, strength=strength))
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, None, probes=bank, plugins=[plugin]):
        speak(model, ids, **options)
    strength = 2.0
    with (
        pytest.raises(UnsupportedError, match=f"Could not steer token by token under {named}"),
        emowatch.watch(model, None, probes=bank, plugins=[plugin]),
    ):
        speak(model, ids, **options)


# Ends


@torch.no_grad()
def test_a_beam_search_lets_its_cache_go(model: Any, bank: ProbeBank) -> None:
    """Gigabytes, at real sizes, that nobody needs once the turn is told to be over."""
    seen: list[weakref.ref[Any]] = []
    keep = model.register_forward_hook(
        lambda _, __, output: seen.append(weakref.ref(output.past_key_values))
    )
    with emowatch.watch(model, None, probes=bank) as watch:
        speak(model, random_ids(1, PROMPT), num_beams=2, eos_token_id=None)
        watch.end_turn()
        assert seen and all(cache() is None for cache in seen)
        assert len(watch.trace.reply()) == NEW
    keep.remove()


@pytest.mark.parametrize("step", [1, 3, NEW])
def test_a_generation_that_a_processor_broke_is_told_as_failed(
    model: Any, bank: ProbeBank, step: int
) -> None:
    """Before its first token, in the middle, and where its last would have been drawn."""
    calls = 0

    def strike(ids: Tensor, scores: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == step:
            raise RuntimeError("lightning")
        return scores

    with emowatch.watch(model, None, probes=bank) as watch:
        with pytest.raises(RuntimeError, match="lightning"):
            speak(model, random_ids(1, PROMPT), logits_processor=[strike], eos_token_id=None)
        speak(model, random_ids(1, PROMPT), eos_token_id=None)
    assert [turn.finish_reason for turn in watch.trace.turns] == ["failed", "length"]


def test_a_reply_that_was_broken_off_is_told_as_failed(model: Any, bank: ProbeBank) -> None:
    """Also where the caller caught what broke it and the watch went on."""
    calls = 0

    def fail(ids: Tensor, _: Any, **__: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("lightning")
        return torch.zeros(len(ids), dtype=torch.bool)

    with emowatch.watch(model, None, probes=bank) as watch:
        with pytest.raises(RuntimeError, match="lightning"):
            speak(model, random_ids(1, PROMPT), stopping_criteria=[fail], eos_token_id=None)
        speak(model, random_ids(1, PROMPT), eos_token_id=None)
    assert [turn.finish_reason for turn in watch.trace.turns] == ["failed", "length"]


def test_a_beam_search_that_was_broken_off_has_no_reply(model: Any, bank: ProbeBank) -> None:
    """Nothing was chosen, so nothing was said."""
    with emowatch.watch(model, None, probes=bank) as watch:
        with pytest.raises(RuntimeError, match="lightning"):
            speak(model, random_ids(1, PROMPT), num_beams=2, stopping_criteria=[fail])
    (turn,) = watch.trace.turns
    assert (turn.finish_reason, turn.reply_tokens, turn.token_ids) == ("failed", 0, ())
    assert {t.offset for t in watch.trace.tokens} == {None}


# Misuse


def test_a_batch_that_is_padded_on_the_right_is_refused(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The reply would follow padding, and its states with it."""
    ids, mask = left_padded((4, PROMPT))
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with pytest.raises(UnsupportedError, match=r'tokenizer\.padding_side = "left"'):
            speak(model, ids.flip(1), mask.flip(1))
    assert not watch.trace.turns


@pytest.mark.parametrize("length", [1, PROMPT - 2])
def test_two_generations_at_once_on_one_watch_are_refused(
    model: Any, bank: ProbeBank, length: int
) -> None:
    """Their forwards would be taken for each other's, and one user's words for another's."""
    ids, other = random_ids(1, PROMPT), random_ids(1, length)

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


@pytest.mark.parametrize("length", [1, 3])
def test_what_a_streamer_asks_the_model_is_no_part_of_the_reply(
    model: Any, bank: ProbeBank, length: int
) -> None:
    """Transformers tells it of a token right before the loop's next forward."""
    ids, other = random_ids(1, PROMPT), random_ids(1, length)

    class Asking(BaseStreamer):
        def put(self, value: Tensor) -> None:
            model(other)

        def end(self) -> None:
            pass

    spoken = speak(model, ids, eos_token_id=None)
    with emowatch.watch(model, None, probes=bank) as watch:
        assert torch.equal(speak(model, ids, eos_token_id=None, streamer=Asking()), spoken)
        offsets = [t.offset for t in watch.trace.tokens if t.offset is not None]
        assert offsets == list(range(NEW))
        assert watch.trace.turns[0].token_ids == tuple(spoken[0, PROMPT:].tolist())


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
