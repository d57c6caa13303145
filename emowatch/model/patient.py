"""One model under examination, and what the doctor's checks do with it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from emowatch.errors import TapError
from emowatch.model.blocks import Blocks, find_blocks
from emowatch.model.certificate import Check
from emowatch.model.tap import Forward, Tap
from emowatch.text import clean_line

PROMPT_TOKENS = 12
REPLY_TOKENS = 4
STEPS = 3
"""Tokens that are fed one by one through the cache."""
PADDING = 3
LIMITS = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest error allowed where the same states are computed in another order, relative to the
largest state of the layer. bfloat16 keeps 8 bits, and errors add up over blocks."""
EXACT = {torch.float32: 0.0, torch.float64: 0.0, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Largest error allowed where nothing is computed again."""


Finding: TypeAlias = tuple[bool, str | float, str | float]
"""Passed, measured, limit."""


class Patient:
    """One model under examination, with what several checks need."""

    def __init__(self, model: nn.Module, tokenizer: Any, path: str | None) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.path = path
        self.dtype = "unknown"
        self.is_damaged = False
        """Whether a weight is no number, so that states are none either."""
        self._blocks: Blocks | None = None
        self._taken: tuple[list[Tensor], Any] | None = None

    def checked(self, test: Test) -> Check:
        """Run one check; whatever goes wrong in a model we have never seen is its finding."""
        if self.is_damaged:
            return Check(
                name=test.name,
                passed=False,
                measured="not measured",
                limit="",
                meaning="States are NaN where weights are; mend those first.",
                only_for=test.only_for,
            )
        try:
            with torch.no_grad():
                passed, measured, limit = test.run(self)
        except Exception as error:  # a model that we have never seen may raise anything
            said = clean_line(str(error), 300) or "no message"
            passed, measured, limit = False, f"{type(error).__name__}: {said}", "no error"
        if isinstance(measured, float) and not math.isfinite(measured):
            measured = str(measured)
        return Check(
            name=test.name,
            passed=passed,
            measured=measured,
            limit=limit,
            meaning=test.meaning,
            only_for=test.only_for,
        )

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
        device: torch.device = self.model.device
        if device.type != "meta":
            return device
        # Weights that are put away lie nowhere between forwards; their hooks know where they go.
        hook = getattr(self.model, "_hf_hook", None)
        return torch.device(getattr(hook, "execution_device", None) or "cpu")

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

    def say(self, most: int, *, ids: Tensor | None = None, **options: Any) -> Any:
        """Generate greedily from the prompt, or from `ids` ``[1, tokens]``.

        Returns:
            Prompt and reply ``[1, tokens]``, or what `options` ask for.
        """
        ids = self.prompt() if ids is None else ids
        known: dict[str, Any] = {
            "max_new_tokens": most,
            "do_sample": False,
            "num_beams": 1,
            # Those of sampling are unset, or transformers warns that they go unused.
            "temperature": None,
            "top_p": None,
            "top_k": None,
            "pad_token_id": int(getattr(self.tokenizer, "pad_token_id", None) or 0),
        }
        return self.model.generate(ids, attention_mask=torch.ones_like(ids), **known | options)

    def read_columns(self, speak: Callable[[], Any]) -> tuple[Any, list[Tensor]]:
        """Run forwards and lay their states out by column, ``[1, columns, d_model]`` per layer.

        A column that is read again, as after a rejected candidate, counts as read last.
        """
        read: list[Tensor] = []

        def place(forward: Forward) -> None:
            past = forward.past
            if not read:
                read.extend(state[:, :0] for state in forward.states)
            for layer, state in enumerate(forward.states):
                if past > read[layer].shape[1]:
                    raise TapError(f"Columns {read[layer].shape[1]} to {past} were not read.")
                read[layer] = torch.cat([read[layer][:, :past], state], 1)

        with Tap(self.model, self.blocks, self.layers, place):
            return speak(), read

    def within(self, found: Sequence[Tensor], wanted: Sequence[Tensor], exact: bool) -> Finding:
        """Compare states layer by layer; the worst layer counts."""
        error = max(_error(f, w) for f, w in zip(found, wanted, strict=True))
        limit = (EXACT if exact else LIMITS).get(wanted[0].dtype, 5e-2)
        return error <= limit, error, limit


@dataclass(frozen=True, slots=True)
class Test:
    """One check that the doctor runs."""

    name: str
    run: Callable[[Patient], Finding]
    meaning: str
    """What a failure means for the scores."""
    only_for: str = ""
    """The use that a failure spoils; empty where it spoils every use."""


def _error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest state; infinite for NaN and other shapes."""
    if found.shape != wanted.shape:
        return math.inf
    far = (found.float() - wanted.float()).abs().max() / wanted.float().abs().max().clamp(min=1e-30)
    return float(far) if bool(torch.isfinite(far)) else math.inf
