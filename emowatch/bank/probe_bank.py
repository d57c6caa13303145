"""A bank: heads with their card, ready to score the states of one model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from emowatch.bank.card import BankCard, Fingerprints, TrainingData
from emowatch.bank.distance import DISTANCE_SHAPES, StateDistance
from emowatch.bank.files import read_bank, write_bank
from emowatch.bank.fingerprints import fingerprint
from emowatch.bank.heads import MAX_OFFSET, HeadKind, Heads
from emowatch.errors import ProbeMismatchError, UsageError
from emowatch.model.blocks import Blocks, find_blocks, resolve_layers
from emowatch.records import BankInfo


class ProbeBank:
    """Heads for one or more layers that share labels, data and calibration.

    Attributes:
        card: everything the bank says of itself.
        heads: the heads of all layers of the card.
        distance: how unlike those of its calibration a state is; `None` where it is not measured.
        sha256: of the file, or of the tensors where there is none.
    """

    def __init__(self, card: BankCard, tensors: Mapping[str, Tensor], sha256: str = "") -> None:
        """Build a bank from checked parts; `emowatch.load_bank` opens one from a file."""
        self.card = card
        self.tensors = dict(tensors)
        beside = ("temperature", "direction", *DISTANCE_SHAPES)
        own = {k: v for k, v in tensors.items() if k not in beside}
        self.heads = Heads(card.head, own, tensors["temperature"], card.bins, card.offsets[1])
        self.distance = StateDistance(tensors, card.bins) if card.can_abstain else None
        self.sha256 = sha256 or _hash(tensors)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Open a bank file or the folder that holds one.

        Raises:
            ProbeFormatError: if it is no sound bank file.
        """
        found = read_bank(path)
        return cls(found.card, found.tensors, found.sha256)

    @classmethod
    def random_for(
        cls,
        model: nn.Module,
        *,
        layers: str | int | Sequence[int] = "all",
        labels: Sequence[str] = ("first", "second"),
        head: HeadKind = "linear",
        hidden: int = 32,
        seed: int = 0,
        name: str = "random",
        blocks: str | None = None,
    ) -> Self:
        """Make a bank with random weights, for tests and benchmarks; its scores mean nothing."""
        structure = find_blocks(model, blocks)
        chosen = resolve_layers(layers, structure.n_layers)
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            scale = shape[-2] ** -0.5 if len(shape) > 2 else 1.0
            return torch.randn(shape, generator=generator) * scale

        n, d, c = len(chosen), structure.d_model, len(labels)
        if head == "linear":
            tensors = {"weight": draw(n, d, c), "bias": draw(n, c)}
        else:
            tensors = {
                "weight_in": draw(n, d, hidden),
                "bias_in": draw(n, hidden),
                "weight_out": draw(n, hidden, c),
                "bias_out": draw(n, c),
            }
        if head == "offset-mlp":
            tensors["offset_embedding"] = draw(n, 513, 16)
            tensors["weight_offset"] = draw(n, 16, hidden)
        tensors["temperature"] = torch.ones(n, 1)
        tensors["direction"] = nn.functional.normalize(draw(n, c, d), dim=-1)
        card = BankCard(
            name=name,
            model=type(model).__name__,
            revision="",
            d_model=d,
            n_layers=structure.n_layers,
            fingerprints=fingerprint(model, structure),
            layers=chosen,
            primary=chosen[len(chosen) // 2],
            labels=tuple(labels),
            target="vector",
            head=head,
            readout="last_prompt_token",
            template=False,
            offsets=(0, MAX_OFFSET),
            bins=(0,),
            data=TrainingData(
                source="random numbers",
                sha256="",
                licence="",
                examples=0,
                quarantined={},
                split="none",
                per_class={},
            ),
            training={"seed": seed},
        )
        return cls(card, tensors)

    @property
    def info(self) -> BankInfo:
        """What plugins may know of this bank."""
        card = self.card
        measured = card.evaluation
        return BankInfo(
            name=card.name,
            labels=card.labels,
            layers=card.layers,
            primary=card.primary,
            target=card.target,
            sha256=self.sha256,
            readout=card.readout,
            offsets=card.offsets,
            at_chance=() if measured is None else measured.at_chance,
            sets=card.label_sets,
            can_abstain=card.can_abstain,
        )

    def save(self, folder: Path | str) -> Path:
        """Write ``probe.safetensors`` and README.md to `folder` and return the file's path."""
        return write_bank(Path(folder), self.card, self.tensors)

    def heads_at(self, layers: Sequence[int]) -> Heads:
        """Return the heads of some of the bank's layers.

        Raises:
            UsageError: for a layer the bank has no head for.
        """
        unknown = [layer for layer in layers if layer not in self.card.layers]
        if unknown:
            raise UsageError(
                f"The bank {self.card.name!r} has no head for layer {unknown[0]}; its layers are "
                f"{', '.join(map(str, self.card.layers))}."
            )
        return self.heads.only([self.card.layers.index(layer) for layer in layers])

    def direction(self, label: str, layer: int) -> Tensor:
        """Return the unit direction ``[d_model]`` of one emotion at one layer: the mean state
        of its training examples minus the mean over emotions.

        Raises:
            UsageError: for an unknown label or layer, or a bank without directions.
        """
        card = self.card
        if "direction" not in self.tensors:
            raise UsageError(f"The bank {card.name!r} holds no directions.")
        if label not in card.labels or layer not in card.layers:
            raise UsageError(
                f"The bank {card.name!r} has no direction {label!r} at layer {layer}; its labels "
                f"are {', '.join(card.labels)} and its layers {', '.join(map(str, card.layers))}."
            )
        place = card.layers.index(layer), card.labels.index(label)
        return self.tensors["direction"][place].float()

    def check_fits(
        self,
        model: nn.Module,
        blocks: Blocks,
        tokenizer: Any = None,
        *,
        model_name: str = "",
        strict: bool = False,
    ) -> list[str]:
        """Compare the bank with a model; return what differs and may be harmless.

        float16 rounds away what tells weights apart, so there they are told of as a doubt.

        Raises:
            ProbeMismatchError: if the model has another shape; with `strict` also if its
                weights, tokenizer or chat template differ from those of the training, or its
                weights cannot be compared because this process does not hold them.
        """
        card, wanted = self.card, self.card.fingerprints
        # A large vocabulary takes most of a second to hash.
        is_compared = bool(wanted.tokenizer or wanted.template)
        found = fingerprint(model, blocks, tokenizer if is_compared else None)
        named = model_name or type(model).__name__
        pair = f"The bank {card.name!r} was trained for {card.model!r}, not for {named!r}"
        remedy = "Name that model (--model), or train a bank for this one with emowatch train."
        if (card.d_model, card.n_layers) != (blocks.d_model, blocks.n_layers):
            raise ProbeMismatchError(
                f"{pair}: it expects {card.n_layers} blocks of width {card.d_model}, and this "
                f"model has {blocks.n_layers} of width {blocks.d_model}. {remedy}"
            )
        if wanted.config != found.config:
            raise ProbeMismatchError(f"{pair}: their configurations differ in shape. {remedy}")
        differing = [
            f.name
            for f in fields(Fingerprints)
            if getattr(wanted, f.name)
            and getattr(found, f.name)
            and getattr(wanted, f.name) != getattr(found, f.name)
        ]
        if "weights" in differing and _is_half(blocks):
            differing[differing.index("weights")] = "weights (or the same before float16)"
        if strict and wanted.weights and not found.weights:
            raise ProbeMismatchError(
                f"{pair}, as far as can be told: the weights of this model cannot be compared, "
                "because this process does not hold all of them (refused because of --strict)."
            )
        if differing and strict:
            raise ProbeMismatchError(
                f"{pair}: {' and '.join(differing)} differ (refused because of --strict)."
            )
        return differing


def _is_half(blocks: Blocks) -> bool:
    middle = blocks.blocks[blocks.n_layers // 2]
    return any(parameter.dtype == torch.float16 for parameter in middle.parameters())


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()
