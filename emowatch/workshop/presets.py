"""How heads are fitted: the settings, and named sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from emowatch.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How heads are fitted; what the paper leaves open is recorded on the card."""

    strengths: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01, 0.003)
    """L2 penalties among which validation chooses for a linear head that is solved; none: it
    learns by AdamW, as the other kinds do, by the settings below."""
    hidden: int = 32
    """Width of the hidden layer of ``mlp`` and ``offset-mlp``."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    """On the hidden layer, in training only."""
    batch: int = 256
    """Rows in a step, at most: where an epoch has few rows they are fewer, for 32 steps in it."""
    epoch_rows: int = 32_768
    """An epoch ends after so many rows, so that early stopping looks often enough; 0: never."""
    epochs: int = 40
    """At most; early stopping usually ends sooner."""
    patience: int = 4
    """Epochs without a better validation loss before a head is done; 0 turns it off."""
    warmup: float = 0.0
    """Share of the steps with rising learning rate."""
    cosine: bool = False
    """Whether the learning rate then falls to 0 along a cosine."""
    seed: int = 0


PRESETS: Mapping[str, FitOptions] = {
    "default": FitOptions(),
    # Zhang & Zhong 2025 (arXiv 2510.04064), section on the probe: one epoch, Adam, 1e-4,
    # 10 % linear warm-up, then cosine. Batch size and hidden width are not given there.
    "paper-a": FitOptions(
        strengths=(),
        learning_rate=1e-4,
        weight_decay=0.0,
        dropout=0.0,
        batch=64,
        epoch_rows=0,
        epochs=1,
        patience=0,
        warmup=0.1,
        cosine=True,
    ),
}


def preset(name: str, **changes: Any) -> FitOptions:
    """Take a named preset, with changes of its fields.

    Raises:
        UsageError: for an unknown name.
    """
    if name not in PRESETS:
        raise UsageError(f"There is no preset {name!r}: use {' or '.join(PRESETS)}.")
    return replace(PRESETS[name], **changes)
