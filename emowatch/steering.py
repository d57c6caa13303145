"""Sum, cap and apply what plugins ask to be added to the residual, and say what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import UsageError
from emowatch.records import Steering, SteeringChange

MAX_STRENGTH = 16.0
"""Largest strength of the sum per layer and row, in units of the residual's RMS. Paper C
steers with 8; past twice that a model speaks gibberish."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one plugin asks to be added in one row."""

    sequence: int
    layer: int
    plugin: str
    direction: str
    """Its name, as `resolve` gives it."""
    strength: float
    vector: Tensor
    """``[d_model]``: unit direction times strength."""


def resolve(
    wish: Steering, banks: Sequence[ProbeBank], n_layers: int, d_model: int
) -> tuple[Tensor, str]:
    """Turn a plugin's answer into a vector and the name of its direction.

    Returns:
        ``[d_model]``, unit direction times strength; and the label, or ``sha256:`` with the
        first 12 digits of the hash of an array's float32 values.

    Raises:
        UsageError: for a layer that cannot be steered, a direction of the wrong width, or a
            label that no bank knows at that layer.
    """
    if not 0 <= wish.layer < n_layers:
        raise UsageError(
            f"Could not steer at layer {wish.layer}: layers 0 to {n_layers - 1} can be steered."
        )
    if not np.isfinite(wish.strength):
        raise UsageError(f"Could not steer with strength {wish.strength}.")
    if isinstance(wish.direction, str):
        owners = [bank for bank in banks if wish.direction in bank.card.labels]
        if not owners:
            known = sorted({label for bank in banks for label in bank.card.labels})
            raise UsageError(
                f"Could not steer towards {wish.direction!r}: no bank here has that label; "
                f"there are {', '.join(known)}."
            )
        return owners[0].direction(wish.direction, wish.layer) * wish.strength, wish.direction
    values = np.asarray(wish.direction, dtype=np.float32)
    vector = torch.tensor(values)
    if vector.shape != (d_model,) or not bool(torch.isfinite(vector).all()):
        raise UsageError(
            f"Could not steer with a direction of shape {tuple(vector.shape)}: finite numbers of "
            f"shape ({d_model},) are needed."
        )
    name = f"sha256:{hashlib.sha256(values.tobytes()).hexdigest()[:12]}"
    return torch.nn.functional.normalize(vector, dim=0) * wish.strength, name


class _Part(NamedTuple):
    """What one plugin adds along one direction."""

    strength: float
    applied: float


_Key = tuple[int, int, str, str]
"""Row, layer, plugin, direction."""


class Mixer:
    """Sums and caps wishes forward by forward, and keeps what is added now to tell changes."""

    def __init__(self) -> None:
        """Begin with nothing added."""
        self._now: dict[_Key, _Part] = {}

    def mix(
        self, wishes: Sequence[Wish], turn: int, offsets: Sequence[int]
    ) -> tuple[dict[int, Tensor], list[SteeringChange]]:
        """Replace what is added by the sum of `wishes`; those of strength 0 count as none.

        Args:
            wishes: all that is asked for now; what is no longer asked for ends.
            turn: number of the turn.
            offsets: for each row, that of its newest state.

        Returns:
            For each layer that is steered, ``[rows, d_model]`` in units of the residual's RMS,
            and one change for each plugin, row, layer and direction whose part is not what it
            was.
        """
        groups: dict[tuple[int, int], list[Wish]] = {}
        for wish in wishes:
            if wish.strength:
                groups.setdefault((wish.sequence, wish.layer), []).append(wish)
        additions: dict[int, Tensor] = {}
        parts: dict[_Key, _Part] = {}
        totals: dict[tuple[int, int], float] = {}
        for (row, layer), group in groups.items():
            total = torch.stack([wish.vector for wish in group]).sum(0)
            norm = float(total.norm())
            factor = 1.0
            if norm > MAX_STRENGTH:
                factor = MAX_STRENGTH / norm
                total *= factor
            totals[row, layer] = norm * factor
            if layer not in additions:
                additions[layer] = torch.zeros(len(offsets), total.shape[0])
            additions[layer][row] = total
            for wish in group:
                key = (row, layer, wish.plugin, wish.direction)
                strength = wish.strength + (parts[key].strength if key in parts else 0.0)
                parts[key] = _Part(strength, strength * factor)
        before, self._now = self._now, {key: part for key, part in parts.items() if part.strength}
        nothing = _Part(0.0, 0.0)
        changes = []
        for key in before | self._now:
            part = self._now.get(key, nothing)
            if part != before.get(key, nothing):
                row, layer, plugin, direction = key
                changes.append(
                    SteeringChange(
                        turn=turn,
                        sequence=row,
                        offset=offsets[row],
                        plugin=plugin,
                        direction=direction,
                        layer=layer,
                        strength=part.strength,
                        applied=part.applied,
                        total=totals.get((row, layer), 0.0),
                    )
                )
        return additions, changes
