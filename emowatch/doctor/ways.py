"""The doctor's checks of ways of decoding: each is run under watch and held to the law.

The first way is greedy search that may not repeat itself; what it said is written down for the
others, so that one forward over the finished text tells for nearly all of them. A way that a model
does not have, or that emowatch refuses in words, is no failure: the finding says so.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CompileConfig, DynamicCache
from transformers.utils.import_utils import is_hqq_available, is_optimum_quanto_available

from emowatch.doctor.certificate import NOT_NEEDED
from emowatch.doctor.law import (
    LAW,
    Said,
    contrast,
    found_in,
    hold,
    misplaced,
    missing,
    watched,
    where_there_is,
)
from emowatch.doctor.patient import PADDING, PROMPT_TOKENS, REPLY_TOKENS, Finding, Patient
from emowatch.doctor.scripts import Branches, Script, Unrepeated
from emowatch.model.blocks import text_config
from emowatch.trace import Trace

SAME_STATE = 1e-5
"""Largest difference between two scores of one state, computed alone and among others."""


def generates_the_same(patient: Patient) -> Finding:
    """Compare the words said with and without a watch, and count the scores."""
    said, trace = _greedily(patient)
    alone, spoken = patient.reply, said.row(0)[1]
    scores = sum(token.offset is not None for token in trace.tokens)
    found = f"{'same' if alone == spoken else 'other'} tokens, {scores} scores for {len(alone)}"
    return alone == spoken and scores == len(alone), found, "same tokens, one score for each"


def speaks_plainly(patient: Patient) -> Finding:
    """Generate with the default cache, which some families keep in part inside their modules."""
    return hold(patient, *_greedily(patient))


def cleans_up(patient: Patient) -> Finding:
    """Break a reply off inside the forward of its second token, and look for what stays."""
    speak, forwards = _as_written(patient), 0

    class Broken(Exception):
        """What breaks it off."""

    def break_off(*_: object) -> None:
        nonlocal forwards
        forwards += 1
        if forwards == 2:
            raise Broken

    handle = patient.blocks.final_norm.register_forward_pre_hook(break_off)
    before = _standing(patient)
    try:
        watched(patient, speak)
    except Broken:
        left = _standing(patient) - before
        return not left, f"{len(left)} hooks left", "none left"
    finally:
        handle.remove()
    return False, "a reply of one forward, which could not be broken off", "two forwards"


def loops_by_itself(patient: Patient) -> Finding:
    """Call the model itself with a cache or a state, as loops of one's own do."""
    prompt, reply = patient.prompt(), _reply(patient)[:-1]
    taken = inspect.signature(patient.model.forward).parameters
    kept = next((name for name in ("past_key_values", "cache_params") if name in taken), "")
    if not kept:
        return True, "not available: the model takes no past_key_values", NOT_NEEDED

    def speak() -> Said:
        has_cache = kept == "past_key_values"
        state = DynamicCache(config=text_config(patient.model)) if has_cache else None
        text = told = prompt
        for token in reply:
            # Recurrent layers would take a mask of the whole text for one of what they are told.
            mask = {"attention_mask": torch.ones_like(text)} if has_cache else {}
            output = patient.speaker(told, use_cache=True, **{kept: state}, **mask)
            state = getattr(output, kept)
            told = prompt.new_tensor([[token]])
            text = torch.cat([text, told], 1)
        return Said(text, torch.ones(1, PROMPT_TOKENS), unheard=1)

    return where_there_is(patient, speak)


def samples_several(patient: Patient) -> Finding:
    """Sample two replies that part at their second token, while nobody hears of tokens."""
    first, second, third = _reply(patient)
    script = Script(PROMPT_TOKENS, [first, second, third], [first, _other(patient), second])
    options: dict[str, Any] = {
        "do_sample": True,
        "num_return_sequences": 2,
        "logits_processor": [script],
    }
    return where_there_is(patient, _as_written(patient, **options), plugins=())


def answers_a_batch(patient: Patient) -> Finding:
    """Answer two prompts, of which the shorter is padded and the answer to it ends first."""
    prompt = patient.prompt()
    padding = prompt.new_full((1, PADDING), patient.pad)
    ids = torch.cat([prompt, torch.cat([padding, prompt[:, :-PADDING]], 1)])
    mask = torch.ones_like(ids)
    mask[1, :PADDING] = 0
    end = [*patient.ends, _other(patient)][0]
    script = Script(PROMPT_TOKENS, _reply(patient), [int(prompt[0, -PADDING]), end])

    def speak() -> Said:
        options = {"eos_token_id": end, "logits_processor": [script]}
        return Said(patient.say(REPLY_TOKENS, ids=ids, mask=mask, **options), mask, (end,))

    return where_there_is(patient, speak)


def runs_without_cache(patient: Patient) -> Finding:
    """Generate while the whole text is read again for each token."""
    speak = _as_written(patient, reply=_reply(patient)[:-1], use_cache=False)
    return where_there_is(patient, speak)


def reads_the_next_turn(patient: Patient) -> Finding:
    """Go on from the cache of an earlier turn, whose prompt was the beginning of this one."""
    read, again = PROMPT_TOKENS // 2, _as_written(patient, reply=_reply(patient)[:-1])

    def speak() -> Said:
        cache = DynamicCache(config=text_config(patient.model))
        patient.say(1, ids=patient.prompt()[:, :read], past_key_values=cache)
        return again(past_key_values=cache, read=read)

    return where_there_is(patient, speak)


def reads_in_chunks(patient: Patient) -> Finding:
    """Read the prompt in two pieces."""
    speak = _as_written(
        patient, reply=_reply(patient)[:-1], prefill_chunk_size=PROMPT_TOKENS // 2 + 1
    )
    return where_there_is(patient, speak)


def runs_statically(patient: Patient) -> Finding:
    """Generate with a static cache, uncompiled."""
    static: dict[str, Any] = {"cache_implementation": "static", "disable_compile": True}
    return where_there_is(patient, _as_written(patient, **static))


def runs_compiled(patient: Patient) -> Finding:
    """Generate with a static cache and the forward compiled, as the model's own config asks for it.

    transformers compiles on accelerators alone, unless it is told to.
    """
    own = getattr(patient.model.generation_config, "compile_config", None)
    kind: Any = CompileConfig
    config = copy.copy(own) if own is not None else kind(mode="default", fullgraph=False)
    config._compile_all_devices = True
    compiled: dict[str, Any] = {"cache_implementation": "static", "compile_config": config}
    vars(patient.model).pop("_compiled_call", None)
    finding = where_there_is(patient, _as_written(patient, **compiled))
    if finding[2] != NOT_NEEDED and not hasattr(patient.model, "_compiled_call"):
        return True, "not available: transformers compiles no static cache here", NOT_NEEDED
    return finding


def packs_its_cache(patient: Patient) -> Finding:
    """Generate with a quantised cache, which changes the states: compare with those that spoke."""
    backend = "quanto" if is_optimum_quanto_available() else "hqq"
    if backend == "hqq" and not is_hqq_available():
        return True, "not tried: install optimum-quanto", NOT_NEEDED
    speak = _as_written(
        patient,
        cache_implementation="quantized",
        cache_config={"backend": backend},
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    try:
        said, trace = watched(patient, speak)
    except Exception as error:  # tried again unwatched, which tells whose it is
        return missing(speak, error)
    if wrong := misplaced(said, trace):
        return False, wrong, LAW
    prompt, reply = said.row(0)
    steps = [torch.stack([layer[0, -1] for layer in step]) for step in said.output.hidden_states]
    spoke = patient.scored(torch.stack(steps, 1).cpu(), torch.arange(len(reply)))
    found = found_in(trace, 0)[1 - len(prompt) - len(reply) :][len(prompt) - 1 :]
    far = np.abs(found - patient.scores([*prompt, *reply[:-1]], len(prompt))[len(prompt) - 1 :])
    own = float(np.abs(found - spoke).max())
    measured = f"{own:.2g} from the states that spoke, {far.max():.2g} from the finished text"
    right = own <= SAME_STATE < contrast(spoke)
    return right, measured, f"{SAME_STATE:g} from the states that spoke"


def takes_candidates(patient: Patient) -> Finding:
    """Generate with candidates from a prompt whose last token has occurred before.

    Two of the first three are right; the third is to be thrown away.
    """
    first, second, third, *_ = prompt = patient.tokens(PROMPT_TOKENS)
    speak = _as_written(
        patient,
        ids=torch.tensor([[*prompt, first]], device=patient.device),
        reply=[second, third, _other(patient), prompt[5]],
        prompt_lookup_num_tokens=3,
        max_matching_ngram_size=1,
    )
    return where_there_is(patient, speak)


def searches_beams(patient: Patient) -> Finding:
    """Search with two beams that part and change places, and return both."""
    first, second, third = _reply(patient)
    other, another, *_ = patient.prompt()[0].tolist()
    branches = Branches(PROMPT_TOKENS, [other, first, second, _other(patient), third, another])
    options: dict[str, Any] = {
        "num_beams": 2,
        "num_return_sequences": 2,
        "logits_processor": [branches],
    }
    return where_there_is(patient, _as_written(patient, **options))


def _standing(patient: Patient) -> set[tuple[int, Any]]:
    """Find all that stands in the way of the model's modules: hooks, and forwards put in place."""
    found = set[tuple[int, Any]]()
    for module in patient.model.modules():
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        found.update((id(module), one) for one in (*hooks, vars(module).get("forward")))
    return found


def _greedily(patient: Patient) -> tuple[Said, Trace]:
    """Speak greedily under watch, once, after having spoken so alone."""
    if patient.greedy is None:
        patient.reply = _unwritten(patient).row(0)[1]
        patient.greedy = watched(patient, lambda: _unwritten(patient))
    said, trace = patient.greedy
    return said, trace


def _unwritten(patient: Patient) -> Said:
    only = Unrepeated(patient.special())
    output = patient.say(REPLY_TOKENS, logits_processor=[only])
    return Said(output, torch.ones(1, PROMPT_TOKENS), patient.ends)


def _reply(patient: Patient) -> list[int]:
    """Give what greedy search said."""
    _greedily(patient)
    return patient.reply


def _other(patient: Patient) -> int:
    """Choose a token that is neither in the prompt nor said by greedy search, if there is one."""
    tokens = patient.tokens(2 * PROMPT_TOKENS)
    return [*(t for t in tokens[PROMPT_TOKENS:] if t not in _reply(patient)), tokens[-1]][0]


def _as_written(
    patient: Patient, *, ids: Tensor | None = None, reply: Sequence[int] = (), **options: Any
) -> Callable[..., Said]:
    """Make what says a written reply to the prompt, or to `ids` ``[1, tokens]``."""
    prompt = patient.prompt() if ids is None else ids
    written = list(reply) or _reply(patient)
    script = Script(prompt.shape[1], written)

    def speak(read: int = 0, **more: Any) -> Said:
        chosen = {"logits_processor": [script]} | options | more
        output = patient.say(len(written), ids=prompt, **chosen)
        sequences = output if isinstance(output, Tensor) else output.sequences
        mask = torch.ones(len(sequences), prompt.shape[1])
        return Said(sequences, mask, patient.ends, read, output)

    return speak
