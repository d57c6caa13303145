"""The residual as blocks are called with it: found, checked, changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emowatch.errors import TapError
from emowatch.model.entrance import Arguments, Change


def hidden_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the hidden states that a block was called with, by place or by keyword."""
    return check_residual(args[0] if args else kwargs.get("hidden_states"))


def check_residual(hidden: Any) -> Tensor:
    """Return what should be hidden states ``[rows, time, d_model]``.

    Raises:
        TapError: for anything else.
    """
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        shape = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise TapError(
            f"A block was called with {shape} where hidden states [rows, time, d_model] were "
            "expected; this model keeps no plain residual stream."
        )
    return hidden


def without_graph(state: Any) -> Tensor:
    """Return hidden states as plain numbers, which keep nothing else alive."""
    hidden = check_residual(state)
    return hidden.detach() if hidden.requires_grad else hidden


ALIKE = 0.02
"""Singular value of directions, beside the largest, below which they count as one: two at a cosine
of 0.9992 or more. To hold them apart would take changes much longer than what is asked for."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What becomes of the components of one row's states along some directions."""

    row: int
    directions: Tensor
    """``[held, d_model]``, of length 1."""
    dual: Tensor
    """``[held, d_model]``: what to add for a change of 1 in each component and none in others."""
    kept: Tensor
    """``[held]``: the share of each component that stays."""
    level: Tensor
    """``[held]``: what is put in the place of the rest, in units of the state's RMS."""

    @classmethod
    def of(cls, row: int, directions: Tensor, kept: Tensor, level: Tensor) -> Hold:
        """Solve for directions that are not orthogonal together; where two that are alike
        contradict each other, they meet in the middle (least squares)."""
        dual = torch.linalg.pinv(directions, rtol=ALIKE).T
        return cls(row, directions, dual, kept, level)

    def change(self, states: Tensor, rms: Tensor) -> Tensor:
        """Give what must be added to states ``[time, d_model]`` so that the components are held."""
        wanted = (self.kept - 1) * (states @ self.directions.T) + rms * self.level  # [time, held]
        return wanted @ self.dual

    def to(self, device: torch.device) -> Hold:
        """Return it on a device."""
        tensors = (self.directions, self.dual, self.kept, self.level)
        return Hold(self.row, *(tensor.to(device) for tensor in tensors))


@dataclass(frozen=True, slots=True)
class Edit:
    """What is done to the states of one layer: a sum is added, then components are held."""

    added: Tensor | None = None
    """``[rows or 1, d_model]`` in units of each state's RMS: ``h += rms(h) · added``."""
    holds: tuple[Hold, ...] = ()

    def __call__(self, hidden: Tensor) -> Tensor:
        """Change hidden states ``[rows, time, d_model]``, in float32 and back."""
        rms = hidden.float().pow(2).mean(-1, keepdim=True).sqrt()  # [rows, time, 1]
        changed = hidden
        if self.added is not None:
            changed = hidden + (rms * self.added[:, None, :]).to(hidden.dtype)
        if self.holds and changed is hidden:
            changed = hidden.clone()
        for hold in self.holds:
            row = changed[hold.row].float()
            changed[hold.row] = (row + hold.change(row, rms[hold.row])).to(hidden.dtype)
        return changed

    def to(self, device: torch.device) -> Edit:
        """Return it on a device; itself where nothing must be moved."""
        held = self.holds[0].directions if self.holds else self.added
        if held is None or held.device == device:
            return self
        added = None if self.added is None else self.added.to(device)
        return Edit(added, tuple(hold.to(device) for hold in self.holds))


_NOTHING = Edit()


def changer(prompt: Edit | None, reply: Edit | None, first: int, past: Callable[[], int]) -> Change:
    """Make what changes a block's input column by column.

    Args:
        prompt: for the columns before `first`; `None` leaves them.
        reply: for the columns from `first` on.
        first: a column of the text, with padding and what is in the cache.
        past: gives the columns that were read before the running forward.
    """
    edits = [prompt or _NOTHING, reply or _NOTHING]

    def change(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        hidden = hidden_of(args, kwargs)
        edits[:] = [edit.to(hidden.device) for edit in edits]
        before = min(max(first - past(), 0), hidden.shape[1])
        both = zip(edits, (hidden[:, :before], hidden[:, before:]), strict=True)
        parts = [part if edit is _NOTHING else edit(part) for edit, part in both if part.shape[1]]
        changed = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        if args:
            return (changed, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": changed}

    return change
