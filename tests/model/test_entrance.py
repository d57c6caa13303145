"""Entrances: whoever comes and goes in whatever order, a module ends with the forward it had."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn

from emowatch.model.entrance import Call, Entrance


def telling(said: list[str], name: str) -> Callable[[Call], Call]:
    """Make what says a name at each call and hands on."""

    def around(own: Call) -> Call:
        def forward(*args: Any, **kwargs: Any) -> Any:
            said.append(name)
            return own(*args, **kwargs)

        return forward

    return around


@pytest.fixture
def module() -> nn.Module:
    """Make a module whose forward is that of its class."""
    return nn.Linear(2, 3)


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_they_are_removed_in_any_order(module: nn.Module, order: tuple[str, ...]) -> None:
    """Two sessions on one model need not end as they began."""
    said: list[str] = []
    entrances = {name: Entrance(module, telling(said, name)) for name in "abc"}
    module(torch.ones(2))
    assert said == ["c", "b", "a"]
    for name in order:
        entrances[name].remove()
        entrances[name].remove()
    said.clear()
    module(torch.ones(2))
    assert "forward" not in vars(module)


def test_a_forward_that_was_replaced_before_is_put_back(module: nn.Module) -> None:
    """accelerate replaces it too, to move what a block is given."""
    calls: list[Tensor] = []

    def own(hidden: Tensor) -> Tensor:
        calls.append(hidden)
        return hidden

    module.forward = own
    entrance = Entrance(module, telling([], "a"))
    module(torch.ones(2))
    entrance.remove()
    assert vars(module)["forward"] is own
    assert len(calls) == 1


class Doubling(ModelHook):  # type: ignore[misc]
    """Gives a module twice what it was called with."""

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Double what came by place."""
        return tuple(2 * arg for arg in args), kwargs


def test_what_another_puts_on_later_is_left_on(module: nn.Module) -> None:
    """A model that is dispatched while it is watched stays dispatched."""
    said: list[str] = []
    once, twice = module(torch.ones(2)), module(torch.full((2,), 2.0))
    entrance = Entrance(module, telling(said, "a"))
    add_hook_to_module(module, Doubling())
    entrance.remove()
    assert torch.equal(module(torch.ones(2)), twice)
    remove_hook_from_module(module)
    assert torch.equal(module(torch.ones(2)), once)


def test_the_signature_is_still_told(module: nn.Module) -> None:
    """Libraries ask a block which arguments it takes."""
    before = inspect.signature(module.forward)
    Entrance(module, telling([], "a"))
    assert inspect.signature(module.forward) == before


def test_what_it_read_is_let_go_with_it(module: nn.Module) -> None:
    """States are large; they must not wait for the garbage collector."""

    class States:
        """Something that can be watched going."""

    def around(own: Call, states: States) -> Call:
        return lambda hidden: own(hidden) if states else None

    states = States()
    gone = weakref.ref(states)
    entrance = Entrance(module, partial(around, states=states))
    module(torch.ones(2))
    gc.disable()
    try:
        entrance.remove()
        del entrance, states
        assert gone() is None
    finally:
        gc.enable()
