"""Stand at the entrance of a module, without a hook.

torch calls a module that has hooks on a slower path. Where that counts, as at each layer and token,
`forward` itself is replaced, as accelerate does it too.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, Self, TypeAlias

from torch import nn

from emowatch.errors import UsageError

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""What a module is called with, by place and by name."""
Read: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], None]
Change: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Arguments]


class Entrance:
    """What stands in place of a module's `forward`, for all who read there or change its input.

    All of them read before any of them changes anything. Others may replace `forward` as well, in
    any order, and whoever took this one for the module's own goes on calling it: when nobody is
    left, it does nothing but hand on.
    """

    # Not in `__dict__`, which others copy when they wrap a function.
    __slots__ = ("__dict__", "__weakref__", "_changes", "_module", "_own", "_reads", "_replaced")

    def __init__(self, module: nn.Module) -> None:
        """Replace the module's `forward`."""
        self._module = module
        self._replaced: Any = vars(module).get("forward")
        """`None` for that of the module's class."""
        self._own: Callable[..., Any] = module.forward
        self._reads: tuple[Read, ...] = ()
        self._changes: tuple[Change, ...] = ()
        functools.update_wrapper(self, self._own)
        vars(module)["forward"] = self

    @classmethod
    def of(cls, module: nn.Module) -> Entrance:
        """Give the one that stands there, or a new one."""
        found = vars(module).get("forward")
        return found if isinstance(found, cls) else cls(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Let everybody read, then change, and call what was replaced."""
        for read in self._reads:
            read(args, kwargs)
        for change in self._changes:
            args, kwargs = change(args, kwargs)
        return self._own(*args, **kwargs)

    def add(self, read: Read | None = None, change: Change | None = None) -> Place:
        """Take somebody in, until the place is removed."""
        self._reads += (read,) if read else ()
        self._changes += (change,) if change else ()
        return Place(self, read, change)

    def drop(self, read: Read | None, change: Change | None) -> None:
        """Let somebody go; with the last, the module gets back what it had, if it still can."""
        self._reads = tuple(one for one in self._reads if one is not read)
        self._changes = tuple(one for one in self._changes if one is not change)
        if self._is_idle and vars(self._module).get("forward") is self:
            own = self._replaced
            while isinstance(own, Entrance) and own._is_idle:
                own = own._replaced
            if own is None:
                del vars(self._module)["forward"]
            else:
                vars(self._module)["forward"] = own

    @property
    def _is_idle(self) -> bool:
        return not self._reads and not self._changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy it with its module: the copy is nobody's, and computes with its own weights."""
        made = object.__new__(type(self))
        made.__setstate__((copy.deepcopy(self._module, memo), copy.deepcopy(self._replaced, memo)))
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled where nobody is left, as inside a copy.

        Raises:
            UsageError: while somebody reads or changes.
        """
        if not self._is_idle:
            raise UsageError(
                f"Could not pickle a {type(self._module).__name__} while it is watched. Leave the "
                "watch first; save_pretrained works inside it."
            )
        return object.__new__, (type(self),), (self._module, self._replaced)

    def __setstate__(self, state: tuple[nn.Module, Any]) -> None:
        """Be at the entrance of a module, with nobody there."""
        self._module, self._replaced = state
        kind = type(self._module)
        self._own = self._replaced or functools.partial(kind.forward, self._module)
        self._reads = self._changes = ()


class Place:
    """Where somebody stands at an entrance."""

    def __init__(self, entrance: Entrance, read: Read | None, change: Change | None) -> None:
        """Use `Entrance.add`."""
        self._entrance = entrance
        self._read = read
        self._change = change

    def remove(self) -> None:
        """Leave; harmless when it was done before."""
        self._entrance.drop(self._read, self._change)


class Hook:
    """A hook of torch's, for places where one costs little; in a copy of its module it is mute."""

    def __init__(self, call: Callable[..., Any]) -> None:
        """Take what is to be called."""
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self._call(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        """Leave nothing of it in a copy."""
        return _nothing


def _nothing(*_: Any, **__: Any) -> None:
    """Stand in a copy for what reads in the original."""
