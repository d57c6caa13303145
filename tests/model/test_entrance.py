"""Entrances: whoever comes and goes in whatever order, a module ends with the forward it had."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import io
import weakref
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn

from emowatch.errors import UsageError
from emowatch.model.blocks import find_blocks
from emowatch.model.entrance import Arguments, Entrance, Place, Read
from emowatch.model.residual import Edit
from emowatch.model.states import read_states
from emowatch.model.tap import Tap
from tests.model.zoo import BLOCKS, WIDTH, make_model, random_ids


class Guest:
    """Reads what a module is called with."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self.seen: list[Tensor] = []

    def stand(self, module: nn.Module) -> Place:
        """Take a place."""
        return Entrance.of(module).add(self.read)

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note it."""
        self.seen.append(args[0] if args else kwargs["input"])


def double(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Give twice what came by place."""
    return tuple(2 * arg for arg in args), kwargs


class Doubling(ModelHook):  # type: ignore[misc]
    """Gives a module twice what it was called with, as accelerate would move it."""

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Double what came by place."""
        return double(args, kwargs)


ONE, TWO = torch.ones(2), torch.full((2,), 2.0)


@pytest.fixture
def module() -> nn.Module:
    """Make a module whose forward is that of its class."""
    return nn.Linear(2, 3)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_places_are_left_in_any_order(module: nn.Module, order: tuple[int, ...]) -> None:
    """Two sessions on one model need not end as they began."""
    guests = [Guest() for _ in range(3)]
    places = [guest.stand(module) for guest in guests]
    module(ONE)
    module(input=ONE)
    assert [len(guest.seen) for guest in guests] == [2, 2, 2]
    for number, which in enumerate(order, 1):
        places[which].remove()
        places[which].remove()
        module(ONE)
        assert sum(len(guest.seen) for guest in guests) == 6 + [2, 3, 3][number - 1]
    assert "forward" not in vars(module)


def test_all_read_before_any_changes(module: nn.Module) -> None:
    """Whoever reads must not see another's hand, in whatever order they came."""
    wanted, early, late = module(TWO), Guest(), Guest()
    places = [early.stand(module), Entrance.of(module).add(change=double), late.stand(module)]
    assert torch.equal(module(ONE), wanted)
    assert torch.equal(early.seen[0], ONE) and torch.equal(late.seen[0], ONE)
    for place in places:
        place.remove()
    assert torch.equal(module(TWO), wanted)


def test_a_forward_that_was_replaced_before_is_put_back(module: nn.Module) -> None:
    """accelerate replaces it too, to move what a block is given."""
    module.forward = own = lambda hidden: hidden
    place = (guest := Guest()).stand(module)
    assert module(ONE) is ONE and guest.seen == [ONE]
    place.remove()
    assert vars(module)["forward"] is own


def test_what_others_put_on_meanwhile_stays_on(module: nn.Module) -> None:
    """A model that is dispatched while it is watched stays so, through the next watch too."""
    once, twice, guest = module(ONE), module(TWO), Guest()
    place = guest.stand(module)
    add_hook_to_module(module, Doubling())
    place.remove()
    assert torch.equal(module(ONE), twice)
    for _ in range(2):
        place = guest.stand(module)
        assert torch.equal(module(ONE), twice)
        place.remove()
        assert torch.equal(module(ONE), twice)
    assert len(guest.seen) == 2
    remove_hook_from_module(module)
    assert torch.equal(module(ONE), once)
    Guest().stand(module).remove()
    assert "forward" not in vars(module)


def test_a_function_that_was_wrapped_meanwhile_is_not_taken_for_ours(module: nn.Module) -> None:
    """`functools.wraps` copies whatever a function has."""
    place, calls = Guest().stand(module), []
    own = module.forward

    @functools.wraps(own)
    def counting(*args: Any) -> Any:
        calls.append(args)
        return own(*args)

    module.forward = counting
    place.remove()
    Guest().stand(module).remove()
    module(ONE)
    assert vars(module)["forward"] is counting
    assert len(calls) == 1


def test_a_read_that_was_broken_off_hands_on_when_it_is_over() -> None:
    """Reading for training ends its own forward; whoever keeps that `forward` must not."""
    model, ids = make_model("llama"), random_ids(1, 4)
    wanted = model(ids).logits
    blocks = find_blocks(model)

    def meanwhile(states: Tensor) -> Tensor:
        add_hook_to_module(blocks.blocks[1], ModelHook())
        return states

    read_states(model, blocks, (1,), ids, torch.ones_like(ids), meanwhile)
    assert torch.equal(model(ids).logits, wanted)


def test_the_signature_is_still_told(module: nn.Module) -> None:
    """Libraries ask a block which arguments it takes."""
    before = inspect.signature(module.forward)
    place = Guest().stand(module)
    assert inspect.signature(module.forward) == before
    place.remove()


def test_what_was_read_is_let_go_at_once(module: nn.Module) -> None:
    """States are large; they wait neither for the garbage collector nor for others to leave."""

    def read_into(guest: Guest) -> Read:
        return lambda args, kwargs: guest.read(args, kwargs)

    for others in (False, True):
        guest = Guest()
        gone = weakref.ref(guest)
        place = Entrance.of(module).add(read_into(guest))
        if others:
            add_hook_to_module(module, ModelHook())
        module(ONE)
        gc.disable()
        try:
            place.remove()
            del place, guest
            assert gone() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("part", ["", "model", "model.layers.1"])
@torch.no_grad()
def test_a_copy_of_what_is_watched_is_nobodys_and_has_its_own_weights(part: str) -> None:
    """As for an average of weights over time."""
    model, ids = make_model("llama"), random_ids(1, 4)
    seen: list[Any] = []
    with Tap(model, find_blocks(model), tuple(range(BLOCKS + 1)), seen.append):
        copied: Any = copy.deepcopy(model.get_submodule(part))
        for parameter in model.parameters():
            parameter.zero_()
        del seen[:]
        if part == "model.layers.1":
            states, places = torch.randn(1, 4, WIDTH), torch.arange(4)[None]
            found = copied(states, position_embeddings=model.model.rotary_emb(states, places))
            assert not torch.equal(found, states)
        else:
            assert copied(ids)[0].abs().sum() > 0
    assert not seen


def test_a_watched_model_is_saved_but_not_pickled(tmp_path: Path) -> None:
    """It would come to life with half of a watch on it."""
    model = make_model("llama")
    with Tap(model, find_blocks(model), (1,), lambda _: None):
        model.save_pretrained(tmp_path)
        assert (tmp_path / "model.safetensors").exists()
        with pytest.raises(UsageError, match=r"while it is watched\. Leave the watch first"):
            torch.save(model.model.layers[1], io.BytesIO())


def test_what_others_put_back_when_nobody_watches_is_pickled() -> None:
    """accelerate gives a block the `forward` that it found, which may have been an entrance."""
    model, ids = make_model("llama"), random_ids(1, 4)
    wanted = model(ids).logits
    with Tap(model, find_blocks(model), (0, 1), lambda _: None):
        for block in model.model.layers:
            add_hook_to_module(block, ModelHook())
        copied = copy.deepcopy(model)
    for whole in (model, copied):
        for block in whole.model.layers:
            remove_hook_from_module(block)
        file = io.BytesIO()
        torch.save(whole, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(ids).logits, wanted)


@torch.no_grad()
def test_a_layer_is_read_before_it_is_changed_whatever_others_put_on() -> None:
    """Steering begins late, when something may stand before the place where is read."""
    model, ids = make_model("llama"), random_ids(1, 4)
    seen: list[Any] = []
    with Tap(model, find_blocks(model), (0, 1, 2), seen.append) as tap:
        model(ids)
        for block in model.model.layers:
            add_hook_to_module(block, ModelHook())
        tap.steer({1: Edit(torch.ones(1, WIDTH))})
        model(ids)
    plain, steered = (forward.states for forward in seen)
    assert torch.equal(plain[1], steered[1])
    assert not torch.equal(plain[2], steered[2])
