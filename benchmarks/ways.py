"""Ways of scoring each token that a model generates: emowatch's, and what one does without it.

All of them apply the same heads to the states that the reply's tokens are sampled from. emowatch
also scores the prompt's tokens and keeps a trace; the others keep lists of scores.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import emowatch
from benchmarks.lockstep import Way, sharing_weights
from benchmarks.shapes import words
from emowatch.bank import ProbeBank
from emowatch.bank.heads import Heads
from emowatch.labels import EKMAN7
from emowatch.model.blocks import Blocks, find_blocks
from emowatch.plugins import DEFAULT_PLUGINS, PluginSpec

HIDDEN = 32
"""Width of a head's hidden layer, as `emowatch train` makes it."""
FIVE = 5
"""Layers of the middle way, spread evenly over the depth, in one bank."""


@dataclass
class Scene:
    """What all ways are given: a model, a prompt, and how many tokens to generate."""

    model: Any
    prompt: Tensor
    """``[rows, columns]``"""
    tokens: int
    folder: Path
    """For what plugins write."""
    tokenizer: Any = field(init=False)
    blocks: Blocks = field(init=False)
    heads: Heads = field(init=False)
    """Of all layers, the same numbers that emowatch reads with."""

    def __post_init__(self) -> None:
        """Make the tokenizer and the heads."""
        self.tokenizer = words(self.model.config.vocab_size)
        self.blocks = find_blocks(self.model)
        self.heads = self.bank().heads.to(self.prompt.device)

    @property
    def inputs(self) -> dict[str, Any]:
        """What `generate` is called with."""
        return {
            "input_ids": self.prompt,
            "attention_mask": torch.ones_like(self.prompt),
            "min_new_tokens": self.tokens,
            "max_new_tokens": self.tokens,
            "do_sample": False,
        }

    def apart(self) -> Scene:
        """Give a way its own modules, on which nobody else's hooks are; the weights are shared."""
        own = copy.copy(self)
        own.model = sharing_weights(self.model)
        own.blocks = find_blocks(own.model)
        return own

    def bank(self, layers: str | Sequence[int] = "all") -> ProbeBank:
        """Make a bank of offset-aware heads for seven emotions, with random weights."""
        return ProbeBank.random_for(
            self.model,
            layers=layers,
            labels=EKMAN7,
            head="offset-mlp",
            hidden=HIDDEN,
        )


class Plain:
    """``generate``, and nobody reads along."""

    def __init__(self, scene: Scene, name: str = "plain") -> None:
        """Take the scene."""
        self.name = name
        self._scene = scene.apart()
        self.model = self._scene.model

    def attached(self) -> AbstractContextManager[None]:
        """Need nothing."""
        return nullcontext()

    def run(self) -> Tensor:
        """Generate."""
        tokens: Tensor = self._scene.model.generate(**self._scene.inputs)
        return tokens

    def scores(self) -> None:
        """Have none."""


class Watched:
    """emowatch: a session that is opened before the clock runs, and a turn from first to last."""

    def __init__(
        self,
        scene: Scene,
        name: str,
        bank: ProbeBank,
        layers: Literal["primary", "all"],
        plugins: Sequence[str] = (),
    ) -> None:
        """Take the scene, a bank, and plugins by name."""
        self.name = name
        self._scene = scene.apart()
        self.model = self._scene.model
        self._bank = bank
        self._layers = layers
        self._plugins = plugins
        self._numbers = itertools.count()
        self._watch: emowatch.Watch | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hold a session open."""
        scene = self._scene
        path = scene.folder / f"{self.name}-{next(self._numbers)}.jsonl"
        options = {
            "jsonl-log": {"path": str(path), "content": "none"},
            "sqlite-log": {"path": str(path.with_suffix(".db"))},
        }
        plugins: list[PluginSpec] = [(name, options.get(name, {})) for name in self._plugins]
        watch = emowatch.watch(
            scene.model,
            scene.tokenizer,
            probes=self._bank,
            plugins=plugins,
            layers=self._layers,
        )
        with watch:
            self._watch = watch
            yield
        assert not watch.plugins.failed
        path.unlink(missing_ok=True)

    def run(self) -> Tensor:
        """Generate, and end the turn."""
        assert self._watch is not None
        tokens: Tensor = self._scene.model.generate(**self._scene.inputs)
        self._watch.end_turn()
        return tokens

    def scores(self) -> NDArray[np.floating]:
        """Read the trace of the last session."""
        assert self._watch is not None
        found = [
            score.scores.array[None] if score.layer_scores is None else score.layer_scores
            for score in self._watch.trace.tokens
            if score.offset is not None
        ]
        return np.stack(found).reshape(-1, len(self._scene.prompt), *found[0].shape)


class HiddenStates:
    """``output_hidden_states=True``, and the heads afterwards, all tokens at once."""

    name = "hidden-states"

    def __init__(self, scene: Scene) -> None:
        """Take the scene."""
        self._scene = scene.apart()
        self.model = self._scene.model
        self._found: list[Any] = []

    def attached(self) -> AbstractContextManager[None]:
        """Need nothing."""
        return nullcontext()

    @torch.no_grad()
    def run(self) -> Tensor:
        """Generate, keeping every state, then score those that tokens were sampled from."""
        output = self._scene.model.generate(
            **self._scene.inputs, output_hidden_states=True, return_dict_in_generate=True
        )
        # [layers, tokens · rows, d_model]
        states = torch.stack(
            [
                torch.cat([step[layer][:, -1] for step in output.hidden_states])
                for layer in range(len(output.hidden_states[0]))
            ]
        )
        offsets = torch.arange(self._scene.tokens, device=states.device)
        rows = len(self._scene.prompt)
        scores = self._scene.heads.scores(states, offsets.repeat_interleave(rows))
        self._found = scores.tolist()
        tokens: Tensor = output.sequences
        return tokens

    def scores(self) -> NDArray[np.floating]:
        """Give the last scores."""
        found = np.array(self._found)  # [layers, tokens · rows, labels]
        return found.reshape(len(found), -1, len(self._scene.prompt), found.shape[-1]).transpose(
            1, 2, 0, 3
        )


class EmptyHooks(Plain):
    """A hook on each block that does nothing: what torch's calling of hooks takes by itself."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the hooks on, and take them off."""
        blocks = self._scene.blocks.blocks
        handles = [block.register_forward_pre_hook(lambda *_: None) for block in blocks]
        yield
        for handle in handles:
            handle.remove()


class NaiveHooks:
    """A hook on each layer that runs its own head and brings the scores to Python at once."""

    name = "naive-hooks"

    def __init__(self, scene: Scene) -> None:
        """Take the scene; each layer's head stands alone."""
        self._scene = scene.apart()
        self.model = self._scene.model
        self._heads = [scene.heads.only([layer]) for layer in range(scene.blocks.n_layers + 1)]
        self._found: list[list[Any]] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the hooks on, and take them off."""
        blocks = self._scene.blocks
        self._found = [[] for _ in self._heads]
        handles = [
            block.register_forward_pre_hook(partial(self._read_input, layer))
            for layer, block in enumerate(blocks.blocks)
        ]
        last = partial(self._read_output, blocks.n_layers)
        handles.append(blocks.final_norm.register_forward_hook(last))
        yield
        for handle in handles:
            handle.remove()

    def run(self) -> Tensor:
        """Generate."""
        tokens: Tensor = self._scene.model.generate(**self._scene.inputs)
        return tokens

    def _read_input(self, layer: int, module: Any, args: tuple[Any, ...]) -> None:
        self._read(layer, args[0])

    def _read_output(self, layer: int, module: Any, args: Any, output: Tensor) -> None:
        self._read(layer, output)

    def _read(self, layer: int, states: Tensor) -> None:
        found = self._found[layer]
        scores = self._heads[layer].scores(states[None, :, -1], len(found))
        found.append(scores[0].tolist())

    def scores(self) -> NDArray[np.floating]:
        """Give the last scores."""
        return np.array(self._found).transpose(1, 2, 0, 3)


def _five(scene: Scene) -> Way:
    depth = scene.blocks.n_layers
    spread = sorted({round(depth * part / FIVE) for part in range(1, FIVE + 1)})
    return Watched(scene, "five-layers", scene.bank(spread), "all")


def _watched(name: str, layers: Literal["primary", "all"], *plugins: str) -> Callable[[Scene], Way]:
    return lambda scene: Watched(scene, name, scene.bank(), layers, plugins)


OWN: Mapping[str, Callable[[Scene], Way]] = {
    "plain-again": lambda scene: Plain(scene, "plain-again"),
    "one-layer": _watched("one-layer", "primary"),
    "one-layer-plugins": _watched("one-layer-plugins", "primary", *DEFAULT_PLUGINS),
    "five-layers": _five,
    "all-layers": _watched("all-layers", "all"),
    "all-layers-plugins": _watched("all-layers-plugins", "all", *DEFAULT_PLUGINS),
    "hidden-states": HiddenStates,
    "empty-hooks": lambda scene: EmptyHooks(scene, "empty-hooks"),
    "naive-hooks": NaiveHooks,
}
"""The ways that need nothing but emowatch and transformers."""


@contextmanager
def scene_of(model: Any, *, batch: int, prompt: int, tokens: int) -> Iterator[Scene]:
    """Set a scene with a random prompt, and clear up what plugins wrote."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, model.config.vocab_size, (batch, prompt), generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        yield Scene(model, ids.to(model.device), tokens, Path(folder))
