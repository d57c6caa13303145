"""The residual as blocks are called with it: found, checked, added to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def adder(addition: Tensor) -> Change:
    """Make what adds ``[rows or 1, d_model]`` to a block's input: ``h += rms(h) * addition``."""

    def add(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        hidden = hidden_of(args, kwargs)
        rms = hidden.float().pow(2).mean(-1, keepdim=True).sqrt()  # [rows, time, 1]
        changed = hidden + (rms * addition.to(hidden.device)[:, None, :]).to(hidden.dtype)
        if args:
            return (changed, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": changed}

    return add
