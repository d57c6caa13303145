"""Every way of decoding that a watch follows, as a function that speaks and says what was said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CompileConfig, DynamicCache, StaticCache

from tests.model.zoo import OLD as OLD
from tests.model.zoo import left_padded, make_model, random_ids
from tests.watching.speaking import NEW, PROMPT, speak

LENGTHS = (3, PROMPT, 5)
WORD = -1
TEMPLATE = torch.tensor([3, WORD, 2, 4, WORD, 2, 5])
"""A system's and a user's message and the header of the reply, in tokens of `tiny_tokenizer`."""


def _chat(ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Write the end of `TEMPLATE` around the words of texts ``[rows, columns]``."""
    form = TEMPLATE[-ids.shape[1] :]
    kept = torch.ones_like(ids) if mask is None else mask
    return torch.where((form != WORD) & (kept != 0), form, ids)


def _one() -> Tensor:
    """Give a prompt ``[1, PROMPT]``."""
    return _chat(random_ids(1, PROMPT))


def _several() -> tuple[Tensor, Tensor]:
    """Give prompts of different lengths, padded on the left, with their mask."""
    ids, mask = left_padded(LENGTHS)
    return _chat(ids, mask), mask


@dataclass(frozen=True)
class Said:
    """What came of one call: the last turn that a watch is to have seen."""

    sequences: Tensor
    """``[rows, columns]``, as they were returned."""
    mask: Tensor
    """``[rows, prompt columns]``: 0 for padding."""
    ends: Sequence[int] = (2,)
    """Tokens that end a reply."""
    read: int = 0
    """Columns of the prompt that an earlier turn has read already."""
    untold: int = 0
    """Columns of the prompt whose tokens this turn was not given: segments begin after them."""


Mode = Callable[[Any], Said]
"""Speaks with a model under watch."""
ENDS = list(range(2, 60))
"""Tokens that end a reply, many of them, so that rows end at different times."""


def _ends(options: dict[str, Any]) -> Sequence[int]:
    return options.get("eos_token_id", (2,)) or ()


def _alone(**options: Any) -> Mode:
    """Answer one prompt."""

    def run(model: Any) -> Said:
        output = speak(model, _one(), **options)
        return Said(output, torch.ones(len(output), PROMPT), _ends(options))

    return run


def _batch(**options: Any) -> Mode:
    """Answer prompts of different lengths, padded on the left."""

    def run(model: Any) -> Said:
        ids, mask = _several()
        output = speak(model, ids, mask, **options)
        return Said(output, mask.repeat_interleave(len(output) // len(ids), 0), _ends(options))

    return run


def _static(model: Any) -> Said:
    """Answer with a static cache of the caller's own."""
    cache = StaticCache(config=model.config, max_cache_len=32)
    return _alone(past_key_values=cache)(model)


def compiled(backend: str = "eager") -> dict[str, Any]:
    """Ask for a static cache with the forward compiled, which transformers does not do on a CPU."""
    kind: Any = CompileConfig
    config = kind(backend=backend, mode=None, fullgraph=True)
    config._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": config}


def _assisted(**options: Any) -> Mode:
    """Let another model propose candidates, of which few are right."""

    def run(model: Any) -> Said:
        assistant = make_model("llama", seed=1)
        # Nearly the same model, so that some candidates are accepted and some are not.
        for own, other in zip(assistant.parameters(), model.parameters(), strict=True):
            own.data = other.data + 0.02 * own.data
        return _alone(assistant_model=assistant, **options)(model)

    return run


def _same_assistant(model: Any) -> Said:
    """Let a copy of the model propose candidates, all of which are right."""
    return _alone(assistant_model=make_model("llama"))(model)


def _next_turn(*, all_ids: bool, **options: Any) -> Mode:
    """Answer a second message with the cache of the first."""

    def run(model: Any) -> Said:
        cache = DynamicCache(config=model.config)
        first = speak(model, _one(), past_key_values=cache, eos_token_id=None)
        longer = torch.cat([first, _chat(random_ids(1, 5, seed=5))], dim=1)
        read = longer.shape[1] - 6  # nobody has read the last token of a reply
        given = longer if all_ids else longer[:, read:]
        output = speak(model, given, torch.ones_like(longer), past_key_values=cache, **options)
        said = output if all_ids else torch.cat([longer[:, :read], output], dim=1)
        return Said(said, torch.ones_like(longer), _ends(options), read, 0 if all_ids else read)

    return run


@torch.no_grad()
def _own_loop(model: Any) -> Said:
    """Call the model with a cache, a batch at a time, as people do who write their own loop."""
    ids, mask = _several()
    widened, cache, told = mask, None, ids
    text = ids
    for _ in range(NEW):
        places = (widened.cumsum(1) - 1).clamp(min=0)[:, -told.shape[1] :]
        output = model(
            told, attention_mask=widened, position_ids=places, past_key_values=cache, use_cache=True
        )
        cache, told = output.past_key_values, output.logits[:, -1:].argmax(-1)
        text = torch.cat([text, told], dim=1)
        widened = torch.cat([widened, torch.ones_like(told)], dim=1)
    return Said(text, mask, ())


@torch.no_grad()
def _own_loop_with_a_static_cache(model: Any) -> Said:
    """Call the model with a mask as wide as the cache, most of which is still empty."""
    cache = StaticCache(config=model.config, max_cache_len=32)
    text = told = _one()
    mask = torch.zeros(1, 32, dtype=torch.long)
    for _ in range(NEW):
        mask[:, : text.shape[1]] = 1
        places = torch.arange(text.shape[1] - told.shape[1], text.shape[1])
        output = model(
            told,
            attention_mask=mask,
            position_ids=places[None],
            cache_position=places,
            past_key_values=cache,
        )
        told = output.logits[:, -1:].argmax(-1)
        text = torch.cat([text, told], dim=1)
    return Said(text, torch.ones(1, PROMPT), ())


@torch.no_grad()
def _own_loop_without_cache(model: Any) -> Said:
    """Call the model on the whole text again and again."""
    text = _one()
    for _ in range(NEW):
        told = model(text, use_cache=False).logits[:, -1:].argmax(-1)
        text = torch.cat([text, told], dim=1)
    return Said(text, torch.ones(1, PROMPT), ())


def _asked(model: Any) -> Said:
    """Let a processor run the model on the newest token alone."""

    def ask(ids: Tensor, scores: Tensor) -> Tensor:
        model(ids[:, -1:])
        return scores

    return _alone(logits_processor=[ask])(model)


MODES: dict[str, Mode] = {
    "greedy": _alone(),
    "greedy to an end": _alone(eos_token_id=ENDS, max_new_tokens=20),
    "greedy batch": _batch(),
    "batch with ends": _batch(eos_token_id=ENDS, max_new_tokens=20),
    "sampling": _alone(do_sample=True, temperature=2.0),
    "several sampled for each": _batch(
        do_sample=True, temperature=2.0, num_return_sequences=3, eos_token_id=ENDS
    ),
    "prefill in chunks": _alone(prefill_chunk_size=3),
    "prefill in chunks of one": _alone(prefill_chunk_size=1),
    "batch in chunks": _batch(prefill_chunk_size=3),
    "no cache": _alone(use_cache=False),
    "batch without cache": _batch(use_cache=False, eos_token_id=ENDS, max_new_tokens=20),
    "static": _alone(cache_implementation="static"),
    "static batch": _batch(cache_implementation="static"),
    "static in chunks": _batch(cache_implementation="static", prefill_chunk_size=3),
    "static cache of one's own": _static,
    "compiled": _alone(**compiled()),
    "compiled batch": _batch(**compiled(), eos_token_id=ENDS, max_new_tokens=20),
    "beams": _alone(num_beams=3),
    "all beams": _alone(num_beams=3, num_return_sequences=3),
    "beams of a batch": _batch(num_beams=3, num_return_sequences=2),
    "beams with ends": _batch(
        num_beams=4, num_return_sequences=3, eos_token_id=ENDS, max_new_tokens=20
    ),
    "beams that stop early": _batch(
        num_beams=3, early_stopping=True, eos_token_id=ENDS, max_new_tokens=20
    ),
    "sampled beams": _batch(num_beams=3, do_sample=True, num_return_sequences=2),
    "beams without cache": _batch(num_beams=2, use_cache=False),
    "beams in chunks": _batch(num_beams=2, prefill_chunk_size=3),
    "assisted": _assisted(max_new_tokens=20, eos_token_id=None),
    "assisted to an end": _assisted(max_new_tokens=40, eos_token_id=ENDS),
    "assisted sampling": _assisted(max_new_tokens=20, do_sample=True),
    "assisted by itself": _same_assistant,
    "look-up": _alone(prompt_lookup_num_tokens=3, max_new_tokens=20),
    "guidance": _alone(guidance_scale=2.0),
    "guided batch": _batch(guidance_scale=1.5, eos_token_id=ENDS, max_new_tokens=20),
    "guided beams": _alone(num_beams=2, guidance_scale=1.5),
    "guided look-up": _alone(prompt_lookup_num_tokens=3, guidance_scale=1.5),
    "a processor that asks the model": _asked,
    "early exit": _alone(assistant_early_exit=1, max_new_tokens=20),
    "next turn": _next_turn(all_ids=True),
    **({} if OLD else {"next turn, new tokens alone": _next_turn(all_ids=False)}),  # it fails there
    "an own loop": _own_loop,
    "an own loop with a static cache": _own_loop_with_a_static_cache,
    "an own loop without cache": _own_loop_without_cache,
}
CHUNKS = tuple(mode for mode in MODES if "chunks" in mode)
"""Modes that are refused before transformers 5, which runs the chunks past the model's hooks."""
