"""The doctor's checks: what is run on a model, and what a failure means for the scores.

Everything is run on the user's own model with a dozen tokens, in the mode it is in.
"""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
import torch
from torch import Tensor

from emowatch.model import ways
from emowatch.model.blocks import text_config
from emowatch.model.patient import PADDING, PROMPT_TOKENS, Finding, Patient, Test
from emowatch.model.readable import check_readable
from emowatch.model.segments import SegmentParser
from emowatch.model.states import read_states
from emowatch.model.weights import numbers_of
from emowatch.records import SEGMENTS


def _finds_blocks(patient: Patient) -> Finding:
    blocks = patient.blocks
    expected = getattr(text_config(patient.model), "num_hidden_layers", blocks.n_layers)
    kind = type(blocks.blocks[0]).__name__
    found = f"{blocks.path}: {blocks.n_layers} × {kind}, width {blocks.d_model}"
    return blocks.n_layers == expected, found, f"{expected} blocks"


def _is_evaluating(patient: Patient) -> Finding:
    training = bool(patient.model.training)
    return not training, "training" if training else "evaluation", "evaluation"


def _has_finite_weights(patient: Patient) -> Finding:
    check_readable(patient.model)
    broken = [
        name
        for name, _ in patient.model.named_parameters()
        if not all(map(_is_finite, numbers_of(patient.model, name)))
    ]
    patient.is_damaged = bool(broken)
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    found = f"{broken[0]}{more}" if broken else "all finite"
    return not broken, found, "all finite"


def _is_finite(numbers: Tensor) -> bool:
    return not numbers.is_floating_point() or bool(torch.isfinite(numbers.float()).all())


def _fires_everywhere(patient: Patient) -> Finding:
    states, _ = patient.taken()
    blocks = patient.blocks
    shaped = [tuple(s.shape) == (1, PROMPT_TOKENS, blocks.d_model) for s in states]
    return all(shaped), f"{sum(shaped)} of {len(shaped)} layers", f"{len(shaped)} layers"


def _equals_hidden_states(patient: Patient) -> Finding:
    states, reported = patient.taken()
    if reported is None or len(reported) != len(states):
        count = "none" if reported is None else str(len(reported))
        return False, f"{count} hidden states for {len(states)} layers", f"{len(states)}"
    return patient.within(states, reported, exact=True)


def _reads_early(patient: Patient) -> Finding:
    ids = patient.prompt()
    early = read_states(
        patient.model, patient.blocks, patient.layers, ids, torch.ones_like(ids), torch.clone
    )
    return patient.within(early, patient.taken()[0], exact=False)


def _ignores_padding(patient: Patient) -> Finding:
    ids = patient.prompt()
    pad = getattr(patient.tokenizer, "pad_token_id", None)
    left = ids.new_full((1, PADDING), int(pad or 0))
    mask = torch.ones_like(torch.cat([left, ids], dim=1))
    mask[:, :PADDING] = 0
    states = patient.read_padded(torch.cat([left, ids], dim=1), mask)
    return patient.within([s[:, PADDING:] for s in states], patient.taken()[0], exact=False)


def _keeps_rows_apart(patient: Patient) -> Finding:
    ids = torch.cat([patient.prompt(shift=1), patient.prompt(), patient.prompt(shift=2)])
    states, _ = patient.read(ids, torch.ones_like(ids))
    return patient.within([s[1:2] for s in states], patient.taken()[0], exact=False)


def _knows_the_template(patient: Patient) -> Finding:
    tokenizer = patient.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        return True, "no chat template: every prompt token counts as user", "informational"
    parser = SegmentParser(tokenizer)
    learnt = set()
    for roles in (("user",), ("user", "assistant", "user"), ("system", "user")):
        dialogue = [{"role": role, "content": "Good morning"} for role in roles]
        try:
            text = tokenizer.apply_chat_template(
                dialogue, tokenize=False, add_generation_prompt=True
            )
        except (jinja2.TemplateError, TypeError, ValueError):
            continue  # no such dialogue, as without a system role
        learnt.update(parser.parse(tokenizer(text, add_special_tokens=False)["input_ids"]))
    found = ", ".join(segment for segment in SEGMENTS if segment in learnt) or "nothing"
    return True, f"segments: {found}", "informational"


CHECKS: Sequence[Test] = (
    Test(
        "blocks",
        _finds_blocks,
        "Layers cannot be numbered, so no head knows where to read. Name the list with blocks=.",
    ),
    Test(
        "mode",
        _is_evaluating,
        "Dropout changes the states at random, and scores with them. Call model.eval().",
    ),
    Test(
        "finite weights",
        _has_finite_weights,
        "States turn into NaN and scores with them. The file or its conversion is damaged.",
    ),
    Test(
        "hooks fire",
        _fires_everywhere,
        "Some layers cannot be read: heads there would have no state to score.",
    ),
    Test(
        "hidden_states parity",
        _equals_hidden_states,
        "What is read is not what transformers calls hidden_states: layers are mixed up, and "
        "banks of other tools do not fit.",
    ),
    Test(
        "offline parity",
        _reads_early,
        "Heads are trained on other states than they score, as where a block changes its input "
        "in place: scores are off by an unknown amount.",
    ),
    Test(
        "left padding",
        _ignores_padding,
        "In a batch, shorter prompts get other scores than alone. Generate one prompt at a time.",
        "batches of prompts of different lengths",
    ),
    Test(
        "batch rows",
        _keeps_rows_apart,
        "A text's scores depend on its neighbours in the batch. Generate one prompt at a time.",
        "batches",
    ),
    Test(
        "generate unchanged",
        ways.generates_the_same,
        "Watching changes what the model says or misses forwards: scores belong to other tokens.",
    ),
    Test(
        "cached decoding",
        ways.caches_rightly,
        "States of generated tokens differ from those of a whole text: scores during generation "
        "do not compare with those of training.",
    ),
    Test(
        "next turn",
        ways.reads_in_parts,
        "A prompt that goes on from the cache of an earlier turn, or comes in chunks, has other "
        "states than one that is read at once. Begin each turn with an empty cache.",
        "a cache that is kept between turns, and prompts in chunks",
    ),
    Test(
        "static cache",
        ways.runs_statically,
        'Under cache_implementation="static" scores differ from those of training. Use the '
        "default cache.",
        "static caches",
    ),
    Test(
        "candidates",
        ways.takes_candidates,
        "Under assisted decoding and prompt look-up, scores belong to other tokens or are those of "
        "rejected ones. Generate without them.",
        "assisted decoding and prompt look-up",
    ),
    Test(
        "beam search",
        ways.searches_beams,
        "Scores of a beam search are those of other beams than the returned ones. Use num_beams=1.",
        "beam search",
    ),
    Test(
        "chat template",
        _knows_the_template,
        "Segments cannot be told apart: every prompt token counts as user.",
    ),
)
