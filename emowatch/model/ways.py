"""The doctor's checks of ways of decoding: are the states the ones of the finished text?

A way that the model itself does not have is no failure of it: the finding says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from emowatch.model.blocks import text_config
from emowatch.model.patient import PROMPT_TOKENS, REPLY_TOKENS, STEPS, Finding, Patient
from emowatch.model.tap import Forward, Tap
from emowatch.text import clean_line

FULL: dict[str, Any] = {"min_new_tokens": STEPS + 1}
"""A reply that is not over before there is something to compare."""
NOT_NEEDED = "informational"


def generates_the_same(patient: Patient) -> Finding:
    """Compare the words said with and without hooks, and count the forwards."""
    forwards: list[Forward] = []
    alone = patient.say(REPLY_TOKENS)
    with Tap(patient.model, patient.blocks, patient.layers, forwards.append):
        watched = patient.say(REPLY_TOKENS)
    spoken = alone.shape[1] - PROMPT_TOKENS
    same = torch.equal(alone, watched)
    found = f"{'same' if same else 'other'} tokens, {len(forwards)} forwards for {spoken}"
    return same and len(forwards) == spoken, found, "same tokens, one forward for each"


def caches_rightly(patient: Patient) -> Finding:
    """Compare states of a reply as it is generated with those of one forward over the whole.

    ``generate`` itself runs the cache: some families keep a part of it inside their modules.
    """
    return _of_finished_text(patient, lambda: patient.say(STEPS + 1, **FULL))


def reads_in_parts(patient: Patient) -> Finding:
    """Go on from the cache of an earlier turn, whose prompt was the beginning of this one."""

    def speak() -> Tensor:
        cache = DynamicCache(config=text_config(patient.model))
        patient.say(1, ids=patient.prompt()[:, : PROMPT_TOKENS // 2], past_key_values=cache)
        said: Tensor = patient.say(STEPS + 1, past_key_values=cache, **FULL)
        return said

    return _where_there_is(patient, speak)


def runs_statically(patient: Patient) -> Finding:
    """Generate with a static cache, uncompiled."""
    options: dict[str, Any] = {"cache_implementation": "static", "disable_compile": True}
    return _where_there_is(patient, lambda: patient.say(STEPS + 1, **FULL, **options))


def takes_candidates(patient: Patient) -> Finding:
    """Generate with candidates looked up in a prompt whose last token has occurred before."""
    options = {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1}
    ids = patient.prompt()
    again = torch.cat([ids, ids[:, :1]], 1)
    return _where_there_is(patient, lambda: patient.say(STEPS + 1, ids=again, **FULL, **options))


def searches_beams(patient: Patient) -> Finding:
    """Follow the beams that a search returned back through its steps."""
    options = FULL | {"num_beams": 2, "return_dict_in_generate": True, "output_logits": True}
    steps: list[tuple[Tensor, ...]] = []

    def speak() -> Any:
        steps.clear()
        return patient.say(STEPS + 1, **options)

    try:
        with Tap(patient.model, patient.blocks, patient.layers, lambda f: steps.append(f.states)):
            output = speak()
    except Exception as error:  # tried again unwatched, which tells whose it is
        return _missing(speak, error)
    text, rows = output.sequences[:1], output.beam_indices[0].tolist()
    rows = rows[: len(steps)]
    read = text[:, : PROMPT_TOKENS - 1 + len(rows)]
    whole, _ = patient.read(read, torch.ones_like(read))
    found = [
        torch.stack([states[layer][row, -1] for states, row in zip(steps, rows, strict=True)])
        for layer in range(len(whole))
    ]
    return patient.within(found, [of[0, PROMPT_TOKENS - 1 :] for of in whole], exact=False)


def _where_there_is(patient: Patient, speak: Callable[[], Tensor]) -> Finding:
    try:
        return _of_finished_text(patient, speak)
    except Exception as error:  # tried again unwatched, which tells whose it is
        return _missing(speak, error)


def _missing(speak: Callable[[], Any], error: Exception) -> Finding:
    """Try unwatched what failed under watch: where it fails too, the model does not have it.

    Raises:
        Exception: the error of the watched try, where the unwatched one succeeds.
    """
    try:
        speak()
    except Exception as own:  # a model that we have never seen may raise anything
        said = clean_line(str(own), 120) or type(own).__name__
        return True, f"not available: {said}", NOT_NEEDED
    raise error


def _of_finished_text(patient: Patient, speak: Callable[[], Tensor]) -> Finding:
    text, found = patient.read_columns(speak)
    read = text[:, :-1]  # the last token is never read
    whole, _ = patient.read(read, torch.ones_like(read))
    return patient.within([of[:, : read.shape[1]] for of in found], whole, exact=False)
