"""The doctor's checks of states: can they be read, and are they what transformers says they are?

Run on the bare tap with a dozen tokens, in the mode that the model is in.
"""

from __future__ import annotations

import jinja2
import torch
from torch import Tensor

from emowatch.doctor.certificate import NOT_NEEDED
from emowatch.doctor.patient import PADDING, PROMPT_TOKENS, Finding, Patient
from emowatch.model.blocks import text_config
from emowatch.model.readable import check_readable, check_speaks
from emowatch.model.segments import SegmentParser
from emowatch.model.states import read_states
from emowatch.model.weights import numbers_of
from emowatch.records import SEGMENTS


def is_watchable(patient: Patient) -> Finding:
    """Ask for what every watch asks first."""
    check_speaks(patient.model)
    check_readable(patient.model)
    return True, "nothing refused", "nothing refused"


def finds_blocks(patient: Patient) -> Finding:
    """Find the blocks, and as many as the config says."""
    blocks = patient.blocks
    expected = getattr(text_config(patient.model), "num_hidden_layers", blocks.n_layers)
    kind = type(blocks.blocks[0]).__name__
    found = f"{blocks.path}: {blocks.n_layers} × {kind}, width {blocks.d_model}"
    return blocks.n_layers == expected, found, f"{expected} blocks"


def is_evaluating(patient: Patient) -> Finding:
    """See which mode the model is in."""
    training = bool(patient.model.training)
    return not training, "training" if training else "evaluation", "evaluation"


def has_finite_weights(patient: Patient) -> Finding:
    """Look for weights that are no numbers, as they are stored."""
    broken = [
        name
        for name, _ in patient.model.named_parameters()
        if not all(map(_is_finite, numbers_of(patient.model, name)))
    ]
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    found = f"{broken[0]}{more}" if broken else "all finite"
    return not broken, found, "all finite"


def _is_finite(numbers: Tensor) -> bool:
    if not numbers.is_floating_point() or not numbers.numel():
        return True
    ends = torch.aminmax(numbers.float() if numbers.element_size() == 1 else numbers)
    return bool(torch.isfinite(torch.stack(ends)).all())  # NaN is both ends of what holds one


def fires_everywhere(patient: Patient) -> Finding:
    """Count the layers whose hooks bring states of the right shape."""
    states, _ = patient.taken()
    blocks = patient.blocks
    shaped = [tuple(s.shape) == (1, PROMPT_TOKENS, blocks.d_model) for s in states]
    return all(shaped), f"{sum(shaped)} of {len(shaped)} layers", f"{len(shaped)} layers"


def equals_hidden_states(patient: Patient) -> Finding:
    """Compare the states with the hidden states of the same forward."""
    states, reported = patient.taken()
    if reported is None or len(reported) != len(states):
        count = "none" if reported is None else str(len(reported))
        return False, f"{count} hidden states for {len(states)} layers", f"{len(states)}"
    return patient.within(states, reported, exact=True)


def reads_early(patient: Patient) -> Finding:
    """Compare with what is read for training, by a forward without a head."""
    ids = patient.prompt()
    early = read_states(
        patient.model, patient.blocks, patient.layers, ids, torch.ones_like(ids), torch.clone
    )
    return patient.within(early, patient.taken()[0], exact=False)


def ignores_padding(patient: Patient) -> Finding:
    """Compare the prompt with the same one padded on its left."""
    ids = patient.prompt()
    left = ids.new_full((1, PADDING), patient.pad)
    mask = torch.ones_like(torch.cat([left, ids], dim=1))
    mask[:, :PADDING] = 0
    states = patient.read_padded(torch.cat([left, ids], dim=1), mask)
    return patient.within([s[:, PADDING:] for s in states], patient.taken()[0], exact=False)


def keeps_rows_apart(patient: Patient) -> Finding:
    """Compare the prompt with the same one after another."""
    ids = torch.cat([patient.prompt(shift=1), patient.prompt()])
    states, _ = patient.read(ids, torch.ones_like(ids))
    return patient.within([s[1:2] for s in states], patient.taken()[0], exact=False)


def knows_the_template(patient: Patient) -> Finding:
    """List the segments that are told apart; without a user's and a reply's there are none."""
    tokenizer = patient.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        return True, "no chat template: every prompt token counts as user", NOT_NEEDED
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
    return {"user", "reply"} <= learnt, f"segments: {found}", "user and reply"
