"""Stand at the entrance of a module, without a hook.

torch calls a module that has hooks on a slower path, which at each layer and token takes longer
than reading does. Where that counts, `forward` itself is replaced, as accelerate does it too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

Call = Callable[..., Any]
MARK = "_emowatch_entrance"
"""Attribute of a `forward` that an entrance has put in place of another."""


@dataclass(slots=True)
class _Replaced:
    """What a `forward` stands in place of."""

    own: Call | None
    """`None` for that of the module's class."""
    is_on: bool = True


class Entrance:
    """What a module's calls go through until it is removed.

    A module may have several, and others may replace its `forward` as well, in any order. Whoever
    took a replaced `forward` for the module's own goes on calling it, so that one which is removed
    must do nothing but hand on.
    """

    def __init__(self, module: nn.Module, around: Callable[[Call], Call]) -> None:
        """Replace the module's `forward` by what `around` makes of the one that it has."""
        self._module = module
        self._replaced = _Replaced(vars(module).get("forward"))
        own: Call = module.forward
        self._forward = functools.wraps(own)(around(own))
        setattr(self._forward, MARK, self._replaced)
        vars(module)["forward"] = self._forward

    def remove(self) -> None:
        """Give the module its own `forward` back, unless it has been replaced by another since."""
        self._replaced.is_on = False
        if vars(self._module).get("forward") is not self._forward:
            return
        own = self._replaced.own
        while (below := getattr(own, MARK, None)) and not below.is_on:
            own = below.own
        if own is None:
            del vars(self._module)["forward"]
        else:
            vars(self._module)["forward"] = own
