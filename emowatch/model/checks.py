"""The doctor's checks: what is run on a model, and what a failure means for the scores.

Everything is run on the user's own model with a dozen tokens, in the mode it is in.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jinja2
import torch
from torch import Tensor, nn

from emowatch.errors import TapError
from emowatch.model.blocks import Blocks, find_blocks, text_config
from emowatch.model.certificate import Check
from emowatch.model.segments import SegmentParser
from emowatch.model.states import read_states
from emowatch.model.tap import Forward, Tap, check_readable
from emowatch.records import SEGMENTS
from emowatch.text import clean_line

PROMPT_TOKENS = 12
REPLY_TOKENS = 6
STEPS = 4
"""Tokens that are fed one by one through the cache."""
PADDING = 3
LIMITS = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest error allowed where the same states are computed in another order, relative to the
largest state of the layer. bfloat16 keeps 8 bits, and errors add up over blocks."""
EXACT = {torch.float32: 0.0, torch.float64: 0.0, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Largest error allowed where nothing is computed again."""


_Finding: TypeAlias = tuple[bool, str | float, str | float]
"""Passed, measured, limit."""


class Patient:
    """One model under examination, with what several checks need."""

    def __init__(self, model: nn.Module, tokenizer: Any, path: str | None) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.path = path
        self.dtype = "unknown"
        self._blocks: Blocks | None = None
        self._taken: tuple[list[Tensor], Any] | None = None

    def checked(self, check: tuple[str, Callable[[Patient], _Finding], str]) -> Check:
        """Run one check; whatever goes wrong in a model we have never seen is its finding."""
        name, run, meaning = check
        try:
            with torch.no_grad():
                passed, measured, limit = run(self)
        except Exception as error:
            said = clean_line(str(error), 300) or "no message"
            passed, measured, limit = False, f"{type(error).__name__}: {said}", "no error"
        if isinstance(measured, float) and not math.isfinite(measured):
            measured = str(measured)
        return Check(name=name, passed=passed, measured=measured, limit=limit, meaning=meaning)

    @property
    def blocks(self) -> Blocks:
        """Where the states are; found once."""
        if self._blocks is None:
            self._blocks = find_blocks(self.model, self.path)
        return self._blocks

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers of the model."""
        return tuple(range(self.blocks.n_layers + 1))

    @property
    def device(self) -> torch.device:
        """Where its prompts go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def prompt(self, shift: int = 0) -> Tensor:
        """Choose ``[1, PROMPT_TOKENS]`` ordinary tokens, spread over the vocabulary."""
        size = int(self.model.get_input_embeddings().weight.shape[0])
        special: set[int] = set()
        if self.tokenizer is not None:
            size = min(size, len(self.tokenizer))
            special = set(self.tokenizer.all_special_ids)
        usable = [token for token in range(size) if token not in special] or [0]
        step = max(1, len(usable) // (PROMPT_TOKENS + 1))
        chosen = [usable[(k * step + shift) % len(usable)] for k in range(1, PROMPT_TOKENS + 1)]
        return torch.tensor([chosen], device=self.device)

    def taken(self) -> tuple[list[Tensor], Any]:
        """Give all layers' states of the prompt as the tap reads them, and transformers' own."""
        if self._taken is None:
            ids = self.prompt()
            states, output = self.read(ids, torch.ones_like(ids), output_hidden_states=True)
            self.dtype = str(states[0].dtype).removeprefix("torch.")
            self._taken = states, output.hidden_states
        return self._taken

    def read(self, ids: Tensor, mask: Tensor, **options: Any) -> tuple[list[Tensor], Any]:
        """Run the whole model once under a tap on all layers."""
        seen: list[Forward] = []
        with Tap(self.model, self.blocks, self.layers, seen.append):
            output = self.model(input_ids=ids, attention_mask=mask, **options)
        if len(seen) != 1:
            raise TapError(f"One forward was run and the tap saw {len(seen)}.")
        return list(seen[0].states), output

    def read_padded(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Read a batch as ``generate`` would run it: with positions that leave padding out."""
        options = {}
        if "position_ids" in inspect.signature(self.model.forward).parameters:
            options["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        return self.read(ids, mask, **options)[0]

    def say(self, most: int, **options: Any) -> Tensor:
        """Generate greedily from the prompt; return prompt and reply ``[1, tokens]``."""
        ids = self.prompt()
        output: Tensor = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
            # Those of sampling are unset, or transformers warns that they go unused.
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=int(getattr(self.tokenizer, "pad_token_id", None) or 0),
            **options,
        )
        return output

    def within(self, found: Sequence[Tensor], wanted: Sequence[Tensor], exact: bool) -> _Finding:
        """Compare states layer by layer; the worst layer counts."""
        error = max(_error(f, w) for f, w in zip(found, wanted, strict=True))
        limit = (EXACT if exact else LIMITS).get(wanted[0].dtype, 5e-2)
        return error <= limit, error, limit


def _error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest state; infinite for NaN and other shapes."""
    if found.shape != wanted.shape:
        return math.inf
    far = (found.float() - wanted.float()).abs().max() / wanted.float().abs().max().clamp(min=1e-30)
    return float(far) if bool(torch.isfinite(far)) else math.inf


# The checks


def _finds_blocks(patient: Patient) -> _Finding:
    blocks = patient.blocks
    expected = getattr(text_config(patient.model), "num_hidden_layers", blocks.n_layers)
    kind = type(blocks.blocks[0]).__name__
    found = f"{blocks.path}: {blocks.n_layers} × {kind}, width {blocks.d_model}"
    return blocks.n_layers == expected, found, f"{expected} blocks"


def _is_evaluating(patient: Patient) -> _Finding:
    training = bool(patient.model.training)
    return not training, "training" if training else "evaluation", "evaluation"


def _has_finite_weights(patient: Patient) -> _Finding:
    check_readable(patient.model)
    broken = [
        name
        for name, parameter in patient.model.named_parameters()
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all())
    ]
    found = f"{broken[0]} and {len(broken) - 1} more" if broken else "all finite"
    return not broken, found, "all finite"


def _fires_everywhere(patient: Patient) -> _Finding:
    states, _ = patient.taken()
    blocks = patient.blocks
    shaped = [tuple(s.shape) == (1, PROMPT_TOKENS, blocks.d_model) for s in states]
    return all(shaped), f"{sum(shaped)} of {len(shaped)} layers", f"{len(shaped)} layers"


def _equals_hidden_states(patient: Patient) -> _Finding:
    states, reported = patient.taken()
    if reported is None or len(reported) != len(states):
        count = "none" if reported is None else str(len(reported))
        return False, f"{count} hidden states for {len(states)} layers", f"{len(states)}"
    return patient.within(states, reported, exact=True)


def _reads_early(patient: Patient) -> _Finding:
    ids = patient.prompt()
    early = read_states(
        patient.model, patient.blocks, patient.layers, ids, torch.ones_like(ids), torch.clone
    )
    return patient.within(early, patient.taken()[0], exact=False)


def _caches_rightly(patient: Patient) -> _Finding:
    """Compare states of a reply as it is generated with those of one forward over the whole.

    ``generate`` itself runs the cache: some families keep a part of it inside their modules.
    """
    seen: list[Forward] = []
    with Tap(patient.model, patient.blocks, patient.layers, seen.append):
        text = patient.say(STEPS + 1, min_new_tokens=STEPS + 1)
    joined = [torch.cat(of_layer, 1) for of_layer in zip(*(f.states for f in seen), strict=True)]
    read = text[:, :-1]  # the last token is never read
    whole, _ = patient.read(read, torch.ones_like(read))
    return patient.within(joined, whole, exact=False)


def _ignores_padding(patient: Patient) -> _Finding:
    ids = patient.prompt()
    pad = getattr(patient.tokenizer, "pad_token_id", None)
    left = ids.new_full((1, PADDING), int(pad or 0))
    mask = torch.ones_like(torch.cat([left, ids], dim=1))
    mask[:, :PADDING] = 0
    states = patient.read_padded(torch.cat([left, ids], dim=1), mask)
    return patient.within([s[:, PADDING:] for s in states], patient.taken()[0], exact=False)


def _keeps_rows_apart(patient: Patient) -> _Finding:
    ids = torch.cat([patient.prompt(shift=1), patient.prompt(), patient.prompt(shift=2)])
    states, _ = patient.read(ids, torch.ones_like(ids))
    return patient.within([s[1:2] for s in states], patient.taken()[0], exact=False)


def _generates_the_same(patient: Patient) -> _Finding:
    forwards: list[Forward] = []
    alone = patient.say(REPLY_TOKENS)
    with Tap(patient.model, patient.blocks, patient.layers, forwards.append):
        watched = patient.say(REPLY_TOKENS)
    spoken = alone.shape[1] - PROMPT_TOKENS
    same = torch.equal(alone, watched)
    # A compiled decoding step runs no hooks: then there are fewer forwards than tokens.
    found = f"{'same' if same else 'other'} tokens, {len(forwards)} forwards for {spoken}"
    return same and len(forwards) == spoken, found, "same tokens, one forward for each"


def _knows_the_template(patient: Patient) -> _Finding:
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


CHECKS: Sequence[tuple[str, Callable[[Patient], _Finding], str]] = (
    (
        "blocks",
        _finds_blocks,
        "Layers cannot be numbered, so no head knows where to read. Name the list with blocks=.",
    ),
    (
        "mode",
        _is_evaluating,
        "Dropout changes the states at random, and scores with them. Call model.eval().",
    ),
    (
        "finite weights",
        _has_finite_weights,
        "States turn into NaN and scores with them. The file or its conversion is damaged.",
    ),
    (
        "hooks fire",
        _fires_everywhere,
        "Some layers cannot be read: heads there would have no state to score.",
    ),
    (
        "hidden_states parity",
        _equals_hidden_states,
        "What is read is not what transformers calls hidden_states: layers are mixed up, and "
        "banks of other tools do not fit.",
    ),
    (
        "offline parity",
        _reads_early,
        "Heads are trained on other states than they score, as where a block changes its input "
        "in place: scores are off by an unknown amount.",
    ),
    (
        "left padding",
        _ignores_padding,
        "In a batch, shorter prompts get other scores than alone. Generate one prompt at a time.",
    ),
    (
        "batch rows",
        _keeps_rows_apart,
        "A text's scores depend on its neighbours in the batch. Generate one prompt at a time.",
    ),
    (
        "generate unchanged",
        _generates_the_same,
        "Watching changes what the model says or misses forwards: scores belong to other tokens.",
    ),
    (
        "cached decoding",
        _caches_rightly,
        "States of generated tokens differ from those of a whole text: scores during generation "
        "do not compare with those of training.",
    ),
    (
        "chat template",
        _knows_the_template,
        "Segments cannot be told apart: every prompt token counts as user.",
    ),
)
