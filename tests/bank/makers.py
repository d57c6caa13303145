"""Banks for tests: random numbers under a card that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from emowatch.bank.card import (
    BankCard,
    Evaluation,
    Fingerprints,
    LayerMetrics,
    OffsetMetrics,
    TrainingData,
)
from emowatch.bank.distance import DISTANCE_SHAPES
from emowatch.bank.files import FORMAT
from emowatch.bank.heads import MAX_OFFSET, SHAPES
from emowatch.bank.uncertainty import Detection, SetMetrics, Uncertainty

HIDDEN, EMBEDDING, FACTORS = 5, 3, 2


def make_uncertainty(**changes: Any) -> Uncertainty:
    """Invent label sets and abstention for the bins of `make_card`."""
    known: dict[str, Any] = {
        "source": "other made-up dialogues",
        "sha256": "f" * 64,
        "split": "by group: 30% for the spread of states, 70% for thresholds",
        "level": 0.9,
        "thresholds": (0.21, 0.17, 0.19),
        "groups": (400, 380, 40),
        "pooled": (False, False, True),
        "last": 64,
        "keeps": 0.99,
        "factors": FACTORS,
    }
    return Uncertainty(**known | changes)


def make_set_metrics() -> SetMetrics:
    """Invent what was measured of them."""
    return SetMetrics(
        level=0.9,
        coverage=0.907,
        coverage_interval=(0.881, 0.931),
        size=1.413,
        size_interval=(1.362, 1.467),
        chance_size=1.8,
        coverage_by_label={"anger": 0.893, "joy": 0.921},
        coverage_by_label_interval={"anger": (0.851, 0.933), "joy": (0.887, 0.951)},
        abstention=0.012,
        abstention_interval=(0.003, 0.024),
        detection=(
            Detection(
                kind="code",
                n=30,
                abstention=0.933,
                abstention_interval=(0.833, 0.999),
                auroc=0.984,
                auroc_interval=(0.961, 0.997),
            ),
        ),
    )


def make_evaluation(**changes: Any) -> Evaluation:
    """Invent metrics for layers 1 and 2 and the labels of `make_card`."""
    metrics = [
        LayerMetrics(
            layer=layer,
            balanced_accuracy=0.5 + layer / 8,
            balanced_accuracy_interval=(0.5, 0.875),
            macro_f1=0.612,
            macro_f1_interval=(0.598, 0.701),
            ece=0.043,
            ece_interval=(0.021, 0.065),
            shuffled_balanced_accuracy=None if layer == 1 else 0.489,
            shuffled_balanced_accuracy_interval=None if layer == 1 else (0.437, 0.541),
        )
        for layer in (1, 2)
    ]
    known: dict[str, Any] = {
        "data": "made-up dialogues",
        "sha256": "e" * 64,
        "n": 240,
        "rows": 480,
        "per_class_rows": {"anger": 240, "joy": 240},
        "chance": 0.5,
        "tfidf_balanced_accuracy": 0.577,
        "tfidf_balanced_accuracy_interval": (0.531, 0.623),
        "layers": tuple(metrics),
        "precision": {"anger": 0.741, "joy": 0.763},
        "recall": {"anger": 0.782, "joy": 0.719},
        "precision_interval": {"anger": (0.684, 0.795), "joy": (0.702, 0.818)},
        "recall_interval": {"anger": (0.731, 0.829), "joy": (0.663, 0.776)},
        "confusion": ((188, 52), (67, 173)),
        "by_offset": (
            OffsetMetrics(
                first=1,
                last=64,
                n=117,
                balanced_accuracy=0.688,
                balanced_accuracy_interval=(0.604, 0.772),
                ece=0.087,
                ece_interval=(0.044, 0.129),
                ece_null=0.052,
                coverage=0.897,
                coverage_interval=(0.846, 0.942),
                size=1.523,
                size_interval=(1.451, 1.598),
            ),
        ),
        "note": "Nobody said any of this.",
        "ece_null": 0.031,
        "sets": make_set_metrics(),
    }
    return Evaluation(**known | changes)


def make_card(**changes: Any) -> BankCard:
    """Write the card of a small bank; any field can be another."""
    known: dict[str, Any] = {
        "name": "mood",
        "model": "owner/tiny",
        "revision": "main",
        "d_model": 4,
        "n_layers": 2,
        "fingerprints": Fingerprints(config="c" * 64, tokenizer="t" * 64),
        "layers": (1, 2),
        "primary": 2,
        "labels": ("anger", "joy"),
        "target": "user",
        "head": "linear",
        "readout": "last_prompt_token",
        "template": True,
        "offsets": (0, 64),
        "bins": (0, 1, 64),
        "data": TrainingData(
            source="made-up dialogues",
            sha256="d" * 64,
            licence="CC0-1.0",
            examples=960,
            quarantined={"empty": 3},
            split="by speaker, 80/20",
            per_class={"anger": 480, "joy": 480},
        ),
        "training": {"seed": 7, "solver": "adam", "weight_decay": 0.01},
        "evaluation": make_evaluation(),
        "licence": "apache-2.0",
        "notes": ("It has not seen a person.",),
        "versions": {"emowatch": "0.1.0"},
    }
    return BankCard(**known | changes)


def make_tensors(card: BankCard, seed: int = 0, dtype: Any = torch.float32) -> dict[str, Tensor]:
    """Draw the tensors that a card promises, with directions."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "layers": len(card.layers),
        "labels": len(card.labels),
        "d_model": card.d_model,
        "bins": len(card.bins),
        "offsets": MAX_OFFSET + 1,
        "hidden": HIDDEN,
        "embedding": EMBEDDING,
        "factors": FACTORS,
    }
    axes = dict(SHAPES[card.head]) | {"direction": "layers labels d_model"}
    tensors = {
        name: torch.randn([sizes[axis] for axis in of.split()], generator=generator).to(dtype)
        for name, of in axes.items()
    }
    shape = sizes["layers"], sizes["bins"]
    tensors["temperature"] = (torch.rand(shape, generator=generator) + 0.5).to(dtype)
    if card.can_abstain:
        for name, of in DISTANCE_SHAPES.items():
            drawn = torch.rand([sizes[axis] for axis in of.split()], generator=generator)
            tensors[name] = (drawn / 4).to(dtype)
    return tensors


def pack(header: Mapping[str, Any] | bytes, data: bytes) -> bytes:
    """Put a safetensors file together by hand, whatever is in it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def unpack(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Take a safetensors file apart into its header and data."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def metadata(card: BankCard) -> dict[str, str]:
    """Write what stands in the header beside the tensors."""
    return {"format": FORMAT, "emowatch.schema": "1", "emowatch.card": card.to_json()}
