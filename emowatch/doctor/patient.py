"""One model under examination, and what the doctor's checks do with it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emowatch.bank import ProbeBank
from emowatch.doctor.certificate import NOT_MEASURED, Check
from emowatch.errors import TapError
from emowatch.model.blocks import Blocks, find_blocks, text_config
from emowatch.model.forward import Forward
from emowatch.model.tap import Tap
from emowatch.text import clean_line

PROMPT_TOKENS = 8
REPLY_TOKENS = 3
PADDING = 3
LIMITS = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest error allowed where the same states are computed in another order, relative to the
largest state of the layer. bfloat16 keeps 8 bits, and errors add up over blocks."""
EXACT = {torch.float32: 0.0, torch.float64: 0.0, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Largest error allowed where nothing is computed again."""
LABELS = tuple("abcdefg")


Finding: TypeAlias = tuple[bool, str | float, str | float]
"""Passed, measured, limit."""
Scores: TypeAlias = NDArray[np.float32]
"""``[time, layers, labels]``"""


class Patient:
    """One model under examination, with what several checks need.

    Attributes:
        speaker: the model as it was handed over, which `generate` is called on.
        model: what emowatch watches of it: a model that peft wraps, or `speaker` itself.
        reply: what it says to the prompt, unwatched; empty before it was asked.
        greedy: what it said to the prompt under watch, and the trace.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, path: str | None) -> None:
        self.speaker: Any = model
        base = getattr(model, "get_base_model", None)
        self.model: Any = model if base is None else base()
        self.tokenizer = tokenizer
        self.path = path
        self.dtype = "unknown"
        self._blocks: Blocks | None = None
        self._taken: tuple[list[Tensor], Any] | None = None
        self._bank: ProbeBank | None = None
        self.reply: list[int] = []
        self.greedy: Any = None
        self._texts: dict[tuple[int, ...], Tensor] = {}

    def examined(self, tests: Iterable[Test]) -> tuple[Check, ...]:
        """Run checks in their order, without those for which an earlier one found no ground."""
        checks: list[Check] = []
        missing = ""
        for test in tests:
            skipped = missing and test.reads
            check = _unmeasured(test, missing) if skipped else self._checked(test)
            if test.is_ground and not check.passed and not missing:
                missing = test.name
            checks.append(check)
        return tuple(checks)

    def _checked(self, test: Test) -> Check:
        """Run one check; whatever goes wrong in a model we have never seen is its finding."""
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
    def has_blocks(self) -> bool:
        """Whether its blocks were found."""
        return self._blocks is not None

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

    @property
    def bank(self) -> ProbeBank:
        """A random bank for all layers, whose scores tell tokens and offsets apart; made once.

        Its heads take states in units of what is usual in each place of the residual stream, so
        that no layer or outlying place drowns the others.
        """
        if self._bank is None:
            made = ProbeBank.random_for(
                self.model, labels=LABELS, head="offset-mlp", hidden=16, blocks=self.path
            )
            states = [state[0].float().cpu() for state in self.taken()[0]]
            usual = torch.stack([state.pow(2).mean(0).sqrt() for state in states])
            least = torch.stack([state.abs().mean() for state in states]) / 10
            unit = usual.maximum(least[:, None]).clamp(min=1e-30)  # [layers, d_model]
            weights = made.tensors["weight_in"] / unit[..., None]
            sharp = made.tensors["weight_out"] * 4
            tensors = made.tensors | {"weight_in": weights, "weight_out": sharp}
            self._bank = ProbeBank(made.card, tensors)
        return self._bank

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a reply."""
        ends = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        return tuple(ends) if isinstance(ends, list | tuple) else () if ends is None else (ends,)

    def special(self) -> list[int]:
        """Give the tokens that are no words: those that end a reply, begin a text or fill it up."""
        config = text_config(self.model)
        found: set[Any] = {getattr(config, f"{kind}_token_id", None) for kind in ("bos", "pad")}
        found.update(self.ends)
        found.update([] if self.tokenizer is None else self.tokenizer.all_special_ids)
        size = int(self.model.get_input_embeddings().weight.shape[0])
        return sorted(token for token in found - {None} if 0 <= token < size)

    def tokens(self, count: int, shift: int = 0) -> list[int]:
        """Choose ordinary tokens, spread over the vocabulary, all different if it has so many."""
        size = int(self.model.get_input_embeddings().weight.shape[0])
        if self.tokenizer is not None:
            size = min(size, len(self.tokenizer))
        special = set(self.special())
        usable = [token for token in range(size) if token not in special] or [0]
        step = max(1, len(usable) // (3 * PROMPT_TOKENS))
        return [usable[(k * step + shift) % len(usable)] for k in range(1, count + 1)]

    def prompt(self, shift: int = 0) -> Tensor:
        """Give ``[1, PROMPT_TOKENS]`` ordinary tokens."""
        return torch.tensor([self.tokens(PROMPT_TOKENS, shift)], device=self.device)

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
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            options["logits_to_keep"] = 1  # a quarter of the work where the vocabulary is large
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

    def scores(self, text: Sequence[int], prompt: int) -> Scores:
        """Score a whole text ``[time]`` from one forward over it, or over one that begins so.

        `prompt` is how many of its tokens are the prompt.
        """
        offsets = (torch.arange(len(text)) - prompt + 1).clamp(min=0)
        return self.scored(self._states_of(tuple(text)), offsets)

    def _states_of(self, text: tuple[int, ...]) -> Tensor:
        """Give the states ``[layers, time, d_model]`` of a text, or of one that goes on from it."""
        for known, states in self._texts.items():
            if known[: len(text)] == text:  # nothing that comes later changes a state
                return states[:, : len(text)]
        ids = torch.tensor([text], device=self.device)
        read, _ = self.read(ids, torch.ones_like(ids))
        self._texts[text] = torch.stack([state[0].cpu() for state in read])
        return self._texts[text]

    def scored(self, states: Tensor, offsets: Tensor) -> Scores:
        """Score states ``[layers, time, d_model]`` at offsets ``[time]``."""
        with torch.autocast("cpu", enabled=False):  # as a watch does, whatever the caller does
            scores: Scores = self.bank.heads.scores(states, offsets).transpose(0, 1).numpy()
        return scores

    def say(
        self, most: int, *, ids: Tensor | None = None, mask: Tensor | None = None, **options: Any
    ) -> Any:
        """Generate greedily from the prompt, or from `ids` ``[rows, tokens]``.

        Returns:
            Prompt and reply ``[rows, tokens]``, or what `options` ask for.
        """
        ids = self.prompt() if ids is None else ids
        known: dict[str, Any] = {
            "max_new_tokens": most,
            "do_sample": False,
            "num_beams": 1,
            "num_return_sequences": 1,
            # Those of sampling are unset, or transformers warns that they go unused.
            "temperature": None,
            "top_p": None,
            "top_k": None,
            "pad_token_id": self.pad,
        }
        seen = torch.ones_like(ids) if mask is None else mask
        return self.speaker.generate(ids, attention_mask=seen, **known | options)

    @property
    def pad(self) -> int:
        """The token of padding."""
        return int(getattr(self.tokenizer, "pad_token_id", None) or 0)

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
    is_ground: bool = False
    """Whether nothing can be read, and so measured, where it fails."""
    reads: bool = True
    """Whether it reads states, so that it cannot be run where they cannot be read."""


def _unmeasured(test: Test, missing: str) -> Check:
    return Check(
        name=test.name,
        passed=False,
        measured=NOT_MEASURED,
        limit="",
        meaning=f"Not run, as are all that need what '{missing}' found broken. Mend that first.",
        only_for=test.only_for,
    )


def _error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest state; infinite for NaN and other shapes."""
    if found.shape != wanted.shape:
        return math.inf
    far = (found.float() - wanted.float()).abs().max() / wanted.float().abs().max().clamp(min=1e-30)
    return float(far) if bool(torch.isfinite(far)) else math.inf
