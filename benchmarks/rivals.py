"""Other libraries' ways of scoring each generated token, as their own documentation has it.

They run on a copy of the model, since they wrap or change it; wrapping it is not timed. Import
this in the environment that ``make bench-rivals`` makes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.lockstep import Way
from benchmarks.ways import Scene


class Nnsight:
    """nnsight: a trace of ``generate`` that reads each layer at every step, in the model's order.

    Its README: "Reach into each generation step — save a container, append raw values".
    """

    def __init__(self, scene: Scene) -> None:
        """Wrap a copy of the model."""
        self.name = "nnsight"
        self._nnsight = import_module("nnsight")
        self.model = copy.deepcopy(scene.model)
        self._wrapped = self._nnsight.TransformersModel(self.model, tokenizer=scene.tokenizer)
        self._scene = scene
        self._found: list[Any] = []

    def attached(self) -> AbstractContextManager[None]:
        """Need nothing: a trace is opened at each call."""
        return nullcontext()

    def run(self) -> Tensor:
        """Generate inside a trace, scoring each step in it."""
        nnsight, model, heads = self._nnsight, self._wrapped, self._scene.heads
        inputs, tokens = self._scene.inputs, self._scene.tokens
        depth = self._scene.blocks.n_layers
        prompt = {name: inputs.pop(name) for name in ("input_ids", "attention_mask")}
        with model.generate(prompt, **inputs) as tracer:
            found = nnsight.save([])
            for step in tracer.iter[:tokens]:
                states = [model.model.embed_tokens.output[:, -1]]
                for layer in range(depth - 1):
                    states.append(model.model.layers[layer].output[:, -1])
                states.append(model.model.norm.output[:, -1])
                found.append(heads.scores(torch.stack(states), step).tolist())
            result = tracer.result.save()
        self._found = found
        output: Tensor = result
        return output

    def scores(self) -> NDArray[np.floating]:
        """Give the last scores."""
        return np.array(self._found).transpose(0, 2, 1, 3)


class TransformerLens:
    """TransformerLens: hooks on the residual stream of a bridge while it generates.

    It runs attention in its eager form, so that hooks can see its pattern; it has no other.
    """

    def __init__(self, scene: Scene) -> None:
        """Put a bridge over a copy of the model."""
        self.name = "transformer-lens"
        bridge = import_module("transformer_lens.model_bridge").TransformerBridge
        self.model = copy.deepcopy(scene.model)
        self._bridge = bridge.boot_transformers(
            "random-llama",
            hf_model=self.model,
            tokenizer=scene.tokenizer,
            device=str(scene.prompt.device),
            dtype=scene.model.dtype,
        )
        self._scene = scene
        self._states: list[Tensor | None] = []
        self._found: list[Any] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put hooks on: the residual before each block, and what the final norm makes of it."""
        depth = self._scene.blocks.n_layers
        self._states, self._found = [None] * (depth + 1), []
        hooks: list[tuple[str, Callable[..., None]]] = [
            (f"blocks.{layer}.hook_resid_pre", partial(self._keep, slot=layer))
            for layer in range(depth)
        ]
        with self._bridge.hooks(fwd_hooks=[*hooks, ("ln_final.hook_out", self._score)]):
            yield

    def run(self) -> Tensor:
        """Generate."""
        tokens: Tensor = self._bridge.generate(
            self._scene.prompt,
            max_new_tokens=self._scene.tokens,
            do_sample=False,
            stop_at_eos=False,
            return_type="tokens",
            verbose=False,
        )
        return tokens

    def _keep(self, states: Tensor, hook: Any, slot: int) -> None:
        self._states[slot] = states[:, -1]

    def _score(self, states: Tensor, hook: Any) -> None:
        self._states[-1] = states[:, -1]
        kept = [state for state in self._states if state is not None]
        scores = self._scene.heads.scores(torch.stack(kept), len(self._found))
        self._found.append(scores.tolist())

    def scores(self) -> NDArray[np.floating]:
        """Give the last scores."""
        return np.array(self._found).transpose(0, 2, 1, 3)


RIVALS: Mapping[str, tuple[str, Callable[[Scene], Way]]] = {
    "nnsight": ("nnsight", Nnsight),
    "transformer-lens": ("transformer-lens", TransformerLens),
}
"""By name: the distribution, and what makes its way."""


def make_rival(name: str, scene: Scene) -> tuple[Way, str]:
    """Make a rival's way; return it with its version.

    Raises:
        Exception: whatever the rival raises, or `PackageNotFoundError` where it is not installed.
    """
    distribution, make = RIVALS[name]
    found = version(distribution)
    return make(scene), found
