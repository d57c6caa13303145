"""Sum, cap and apply what plugins ask to be done to the residual, and say what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import UsageError
from emowatch.model.residual import Edit, Hold
from emowatch.records import Mode, Positions, Steering, SteeringChange
from emowatch.text import clean_line

MAX_STRENGTH = 16.0
"""Largest strength of the sum per layer and row, and of a clamp, in units of the residual's RMS.
Paper C steers with 8; past twice that a model speaks gibberish. Taking out has no cap: it cannot
take more than there is."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one plugin asks for in one row."""

    sequence: int
    layer: int
    plugin: str
    direction: str
    """Its name, as `resolve` gives it."""
    strength: float
    vector: Tensor
    """``[d_model]``, of length 1."""
    mode: Mode = "add"
    positions: Positions = "reply"
    shadow: bool = False

    @property
    def does_something(self) -> bool:
        """Whether it can change anything; a clamp to 0 does, nothing else of strength 0."""
        return self.mode == "clamp" or self.strength != 0


def resolve(
    asked: Steering,
    banks: Sequence[ProbeBank],
    n_layers: int,
    d_model: int,
    *,
    plugin: str,
    sequence: int,
) -> Wish:
    """Check a plugin's answer and find its direction.

    The name of its direction is the label, or ``sha256:`` with the first 12 digits of the hash of
    an array's float32 values.

    Raises:
        UsageError: for a layer that cannot be steered, a strength or mode that there is not, a
            direction of the wrong width or of no length, or a label that no bank knows at that
            layer.
    """
    if not 0 <= asked.layer < n_layers:
        raise UsageError(
            f"Could not steer at layer {asked.layer}: layers 0 to {n_layers - 1} can be steered."
        )
    for kind, given, known in (
        ("mode", asked.mode, get_args(Mode)),
        ("positions", asked.positions, get_args(Positions)),
    ):
        if given not in known:
            raise UsageError(
                f"Could not steer with the {kind} {clean_line(repr(given), 30)}: there are "
                f"{', '.join(known)}."
            )
    if not np.isfinite(asked.strength):
        raise UsageError(f"Could not steer with strength {asked.strength}.")
    if asked.mode == "ablate" and not 0 <= asked.strength <= 1:
        raise UsageError(
            f"Could not take out a share of {asked.strength:g}: it is between 0 and 1, which "
            "takes out all."
        )
    vector, name = (
        _of_label(asked.direction, asked.layer, banks)
        if isinstance(asked.direction, str)
        else _of_array(asked.direction, d_model)
    )
    return Wish(
        sequence=sequence,
        layer=asked.layer,
        plugin=plugin,
        direction=name,
        strength=float(asked.strength),
        vector=vector,
        mode=asked.mode,
        positions=asked.positions,
        shadow=bool(asked.shadow),
    )


def _of_label(name: str, layer: int, banks: Sequence[ProbeBank]) -> tuple[Tensor, str]:
    owner, slash, label = name.rpartition("/")
    for bank in banks:
        if label in bank.card.labels and (not slash or bank.card.name == owner):
            return bank.direction(label, layer), name
    known = sorted({label for bank in banks for label in bank.card.labels})
    raise UsageError(
        f"Could not steer towards {clean_line(name)!r}: no bank here has that label; "
        f"there are {', '.join(map(clean_line, known))}."
    )


def _of_array(direction: object, d_model: int) -> tuple[Tensor, str]:
    values = np.asarray(direction, dtype=np.float32)
    vector = torch.tensor(values)
    if vector.shape != (d_model,) or not bool(torch.isfinite(vector).all()):
        raise UsageError(
            f"Could not steer with a direction of shape {tuple(vector.shape)}: finite numbers of "
            f"shape ({d_model},) are needed."
        )
    if not vector.any():
        raise UsageError("Could not steer with a direction of length 0.")
    name = f"sha256:{hashlib.sha256(values.tobytes()).hexdigest()[:12]}"
    return torch.nn.functional.normalize(vector, dim=0), name


def edits_of(wishes: Sequence[Wish], rows: int) -> dict[int, Edit]:
    """Make what is done to each layer's states: the capped sum of what is added, then holds.

    Shadows and what does nothing are left out.
    """
    found: dict[int, Edit] = {}
    groups: dict[tuple[int, int], list[Wish]] = {}
    for wish in wishes:
        if wish.does_something and not wish.shadow:
            groups.setdefault((wish.layer, wish.sequence), []).append(wish)
    for (layer, row), group in groups.items():
        edit = found.get(layer, Edit())
        added, holds = edit.added, edit.holds
        if any(wish.mode == "add" for wish in group):
            total = _sum(group)
            if added is None:
                added = torch.zeros(rows, total.shape[0])
            added[row] = total * _factor(total)
        # Of what one plugin holds along one direction the last word counts, here as in the ledger.
        last = {(w.plugin, w.direction, w.mode): w for w in group if w.mode != "add"}
        if held := list(last.values()):
            hold = Hold.of(
                row,
                torch.stack([wish.vector for wish in held]),
                torch.tensor([1 - w.strength if w.mode == "ablate" else 0.0 for w in held]),
                torch.tensor([_level(w) if w.mode == "clamp" else 0.0 for w in held]),
            )
            # What clamps put in together is capped too: those along like directions add up.
            level = hold.level * _factor(hold.level @ hold.dual)
            holds = (*holds, replace(hold, level=level))
        found[layer] = Edit(added, holds)
    return found


def _sum(wishes: Sequence[Wish]) -> Tensor:
    return torch.stack([w.vector * w.strength for w in wishes if w.mode == "add"]).sum(0)


def _factor(total: Tensor) -> float:
    """Give what the cap leaves of a sum."""
    return MAX_STRENGTH / max(float(total.norm()), MAX_STRENGTH)


def _level(wish: Wish) -> float:
    return min(max(wish.strength, -MAX_STRENGTH), MAX_STRENGTH)


class _Key(NamedTuple):
    """What a change is of."""

    row: int
    layer: int
    plugin: str
    direction: str
    mode: Mode
    shadow: bool


class _Part(NamedTuple):
    """What one plugin does along one direction."""

    strength: float
    applied: float


class Ledger:
    """Keeps what is done now, forward by forward, to tell changes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._now: dict[_Key, _Part] = {}

    def replace(
        self, wishes: Sequence[Wish], turn: int, offsets: Sequence[int | None]
    ) -> list[SteeringChange]:
        """Replace what is done by all of `wishes`; those that do nothing count as none.

        Args:
            wishes: all that is asked for now; what is no longer asked for ends.
            turn: number of the turn.
            offsets: for each row, that of its newest state; `None` before the first.

        Returns:
            One change for each plugin, row, layer, direction and mode whose part is not what it
            was; none where `edits_of` would make what it made before.
        """
        parts: dict[_Key, _Part] = {}
        sums: dict[tuple[int, int], list[Wish]] = {}
        for wish in wishes:
            if wish.does_something and wish.mode == "add" and not wish.shadow:
                sums.setdefault((wish.sequence, wish.layer), []).append(wish)
        totals = {place: _sum(group) for place, group in sums.items()}
        for wish in wishes:
            if not wish.does_something:
                continue
            place = wish.sequence, wish.layer
            key = _Key(*place, wish.plugin, wish.direction, wish.mode, wish.shadow)
            strength = applied = wish.strength
            if wish.mode == "add":
                strength += parts[key].strength if key in parts else 0.0
                applied = 0.0 if wish.shadow else strength * _factor(totals[place])
            elif wish.mode == "clamp":
                applied = _level(wish)
            parts[key] = _Part(strength, 0.0 if wish.shadow else applied)
        before, self._now = (
            self._now,
            {key: part for key, part in parts.items() if key.mode == "clamp" or part.strength},
        )
        lengths = {place: float(total.norm()) * _factor(total) for place, total in totals.items()}
        changes = []
        for key in before | self._now:
            part = self._now.get(key)
            if part != before.get(key):
                changes.append(
                    SteeringChange(
                        turn=turn,
                        sequence=key.row,
                        offset=offsets[key.row],
                        plugin=key.plugin,
                        direction=key.direction,
                        layer=key.layer,
                        strength=part.strength if part else 0.0,
                        applied=part.applied if part else 0.0,
                        total=lengths.get((key.row, key.layer), 0.0),
                        mode=key.mode,
                        shadow=key.shadow,
                        ended=part is None,
                    )
                )
        return changes
