"""The tap: what hooks read is exactly what transformers calls hidden_states."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emowatch.errors import ModelError, TapError, UnsupportedError
from emowatch.model.blocks import find_blocks
from emowatch.model.forward import Forward
from emowatch.model.residual import Edit
from emowatch.model.states import read_states
from emowatch.model.tap import Tap
from tests.model.zoo import (
    BLOCKS,
    FAMILIES,
    WIDTH,
    close,
    fail,
    hook_count,
    left_padded,
    make_model,
    random_ids,
)

LAYERS = tuple(range(BLOCKS + 1))


@contextmanager
def tapped(
    model: nn.Module, layers: tuple[int, ...] = LAYERS
) -> Iterator[tuple[Tap, list[Forward]]]:
    """Tap a model and collect its forwards."""
    seen: list[Forward] = []
    with Tap(model, find_blocks(model), layers, seen.append) as tap:
        yield tap, seen


def ignore(forward: Forward) -> None:
    """Take a forward and do nothing."""


@torch.no_grad()
def states_of(model: Any, ids: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """Read all layers of one forward through a tap."""
    with tapped(model) as (_, seen):
        model(input_ids=ids, **options)
    return seen[0].states


# Parity


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_tap_reads_exactly_the_hidden_states_of_transformers(family: str) -> None:
    """Every score hangs on this: the numbers are the same to the last bit, at every layer."""
    model, ids = make_model(family), random_ids(2, 9)
    states = states_of(model, ids)
    reported = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(reported) == len(states) == BLOCKS + 1
    for layer, (found, wanted) in enumerate(zip(states, reported, strict=True)):
        assert torch.equal(found, wanted), f"layer {layer}"


@torch.no_grad()
def test_states_of_a_bfloat16_model_are_handed_out_as_they_are() -> None:
    """Widening is for whoever computes with them; here it would double the memory."""
    model = make_model("llama").to(torch.bfloat16)
    ids = random_ids(1, 5)
    states = states_of(model, ids)
    reported = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert {state.dtype for state in states} == {torch.bfloat16}
    assert all(torch.equal(f, w) for f, w in zip(states, reported, strict=True))


@torch.no_grad()
def test_a_residual_handed_on_by_keyword_is_read_too() -> None:
    """Some decoders call their blocks with hidden_states=…; then a hook's args are empty."""
    model = make_model("llama")
    ids = random_ids(1, 5)
    wanted = states_of(model, ids)

    class ByKeyword(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.self_attn = block.self_attn
            self.block = block

        def __call__(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, hidden_states=hidden, **kwargs)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.block(*args, **kwargs)

    for number in range(BLOCKS):
        model.model.layers[number] = ByKeyword(model.model.layers[number])
    seen: list[Forward] = []
    with Tap(model, find_blocks(model, "model.layers"), LAYERS, seen.append) as tap:
        model(input_ids=ids)
        tap.steer({1: Edit(torch.ones(1, WIDTH))})
        model(input_ids=ids)
    assert all(torch.equal(f, w) for f, w in zip(seen[0].states, wanted, strict=True))
    assert not torch.equal(seen[1].states[2], wanted[2])


@torch.no_grad()
def test_a_block_called_with_something_else_is_refused() -> None:
    """A model may keep its residual in another shape; a guess would give scores of nothing."""
    model = make_model("llama")
    block = model.model.layers[1]
    forward = block.forward
    block.register_forward_pre_hook(
        lambda _, args, options: ((args[0][0],), options), with_kwargs=True
    )
    block.forward = lambda hidden, **options: forward(hidden[None], **options)
    with tapped(model), pytest.raises(TapError, match=rf"\(4, {WIDTH}\) where.*no plain residual"):
        model(input_ids=random_ids(1, 4))


# Depth


# Left as found


def test_the_hooks_are_gone_after_a_normal_end() -> None:
    """The model is the user's."""
    model = make_model("llama")
    before = hook_count(model)
    with tapped(model) as (tap, _):
        tap.steer({0: Edit(torch.zeros(1, WIDTH))})
        assert hook_count(model) == before + len(LAYERS) + 3
    assert hook_count(model) == before
    assert not tap.steered


@pytest.mark.parametrize("place", ["block", "norm", "head"])
def test_the_hooks_are_gone_after_an_exception_in_the_model(place: str) -> None:
    """Out of memory happens in the middle of a forward."""
    model = make_model("llama")
    module = {"block": model.model.layers[1], "norm": model.model.norm, "head": model.lm_head}
    module[place].forward = fail
    before = hook_count(model)
    with pytest.raises(RuntimeError, match="lightning"), tapped(model) as (tap, _):
        tap.steer({1: Edit(torch.zeros(1, WIDTH))})
        model(input_ids=random_ids(1, 4))
    assert hook_count(model) == before


@pytest.mark.parametrize("callback", ["on_begin", "on_forward"])
def test_the_hooks_are_gone_after_an_exception_in_a_callback(callback: str) -> None:
    """What listens may fail as well, and its error is the one that is seen."""
    model = make_model("llama")
    before = hook_count(model)
    calls: dict[str, Callable[..., Any]] = {"on_forward": ignore, callback: fail}
    tap = Tap(model, find_blocks(model), LAYERS, **calls)
    with pytest.raises(RuntimeError, match="lightning"), tap:
        model(input_ids=random_ids(1, 4))
    assert hook_count(model) == before


def test_states_of_an_interrupted_forward_are_let_go() -> None:
    """They would hold the memory whose lack was the reason."""
    model = make_model("llama")
    model.model.layers[2].forward = fail
    with pytest.raises(RuntimeError), tapped(model) as (tap, _):
        model(input_ids=random_ids(1, 4))
    assert not any(isinstance(state, Tensor) for state in tap._states)
    assert tap._running is None


def test_a_tap_is_entered_once_at_a_time() -> None:
    """Twice the hooks would read twice."""
    model = make_model("llama")
    before = hook_count(model)
    with tapped(model) as (tap, _):
        with pytest.raises(TapError, match="already on its model"):
            tap.__enter__()
    assert hook_count(model) == before
    with tap:
        pass
    assert hook_count(model) == before


def test_a_tap_that_cannot_be_set_wholly_is_not_set_at_all() -> None:
    """As where memory runs out between two hooks."""
    model = make_model("llama")
    before, tap = hook_count(model), Tap(model, find_blocks(model), LAYERS, ignore)
    tap.blocks = replace(tap.blocks, final_norm=Deaf())
    with pytest.raises(RuntimeError, match="takes no hooks"):
        tap.__enter__()
    assert hook_count(model) == before
    tap.blocks = find_blocks(model)
    with tap:
        assert hook_count(model) == before + len(LAYERS) + 3


class Deaf(nn.Module):
    """Takes no hooks."""

    def register_forward_hook(self, *_: Any, **__: Any) -> Any:
        """Refuse."""
        raise RuntimeError("it takes no hooks")


def test_a_tap_that_was_left_keeps_no_states() -> None:
    """Also where it was left in the middle of a forward, or of compiled ones."""
    model = make_model("llama")
    model.model.norm.forward = fail
    with pytest.raises(RuntimeError, match="lightning"), tapped(model) as (tap, _):
        tap.expect_compiled([torch.zeros(1, 1, WIDTH)])
        tap._states[0] = torch.zeros(1)
        raise RuntimeError("lightning")
    assert tap._buffer is None and tap._running is None and tap._thread is None
    assert not any(isinstance(state, Tensor) for state in tap._states)


def test_an_interrupted_forward_keeps_no_other_thread_out() -> None:
    """Ctrl+C in a notebook; torch tells nobody that the forward is over."""
    model, ids = make_model("llama"), random_ids(1, 3)

    def interrupt(*_: Any) -> None:
        handle.remove()
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as thread, tapped(model) as (_, seen):
        handle = model.model.layers[1].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(input_ids=ids)
        call(thread, model, ids)
    assert len(seen) == 1


# Refused


def test_compiled_forwards_on_several_devices_are_refused() -> None:
    """One buffer lies on one device."""
    with tapped(make_model("llama")) as (tap, _):
        states = [torch.zeros(1, 1, WIDTH), torch.zeros(1, 1, WIDTH, device="meta")]
        with pytest.raises(UnsupportedError, match=r"several devices\. Pass disable_compile"):
            tap.expect_compiled(states)


@torch.no_grad()
def test_a_block_that_runs_twice_in_a_forward_is_refused() -> None:
    """Which of its two states would be the layer's?"""
    model, ids = make_model("llama"), random_ids(1, 3)
    first, last = model.model.layers[0], model.model.layers[2]
    whole = last.forward
    last.forward = lambda hidden, **kwargs: whole(first(hidden, **kwargs), **kwargs)
    with tapped(model), pytest.raises(TapError, match="block of layer 0 ran twice in one forward"):
        model(input_ids=ids)


@pytest.mark.parametrize("how", ["whole", "in place", "part"])
def test_a_compiled_model_is_refused(how: str) -> None:
    """Compiled code skips hooks in silence (pytorch #117758): there would be no scores."""
    model = make_model("llama")
    blocks = find_blocks(model)
    compiled: Any = model
    if how == "whole":
        compiled = torch.compile(model, backend="eager")
    elif how == "in place":
        model.compile(backend="eager")
    else:
        model.model.layers[1].compile(backend="eager")
    with pytest.raises(UnsupportedError, match="is compiled, and compiled code skips hooks"):
        Tap(compiled, blocks, LAYERS, ignore)
    with pytest.raises(UnsupportedError, match="is compiled"):
        read_states(compiled, blocks, (1,), random_ids(1, 3), torch.ones(1, 3).long())


def test_a_model_without_numbers_is_refused() -> None:
    """A model on the meta device runs and yields nothing."""
    model = make_model("llama").to("meta")
    with pytest.raises(ModelError, match="on the meta device and has no values"):
        Tap(model, find_blocks(model), LAYERS, ignore)


@torch.no_grad()
def test_a_layer_that_does_not_fire_is_an_error() -> None:
    """Silence would read as an old score."""
    model = make_model("llama")
    spare = make_model("llama", seed=1).model.layers
    model.model.spare = spare
    seen: list[Forward] = []
    with Tap(model, find_blocks(model, "model.spare"), (0, 2), seen.append):
        with pytest.raises(TapError, match=r"hooks of layers \[0, 2\] did not fire.*blocks="):
            model(input_ids=random_ids(1, 3))
    with pytest.raises(TapError, match="did not fire"):
        ids = random_ids(1, 3)
        read_states(model, find_blocks(model, "model.spare"), (2,), ids, torch.ones_like(ids))
    assert not seen


@torch.no_grad()
def test_a_forward_without_token_ids_is_refused() -> None:
    """Without ids nobody can say which token a score belongs to."""
    model = make_model("llama")
    with tapped(model), pytest.raises(UnsupportedError, match=r"inputs_embeds.*Pass input_ids"):
        model(inputs_embeds=torch.zeros(1, 3, WIDTH))


def call(thread: ThreadPoolExecutor, model: Any, ids: Tensor) -> Any:
    """Run a forward in a thread that stays alive."""
    return thread.submit(model, input_ids=ids).result(60)


def test_a_forward_that_failed_keeps_no_other_thread_out() -> None:
    """A server's worker lives on after an error; the model is free again all the same."""
    model, ids = make_model("llama"), random_ids(1, 3)
    with ThreadPoolExecutor(1) as thread, tapped(model) as (_, seen):
        with pytest.raises(IndexError):
            call(thread, model, torch.full((1, 3), 10**6))
        model(input_ids=ids)
    assert [forward.input_ids.tolist() for forward in seen] == [ids.tolist()]


def test_a_forward_that_is_refused_leaves_the_one_it_met_alone() -> None:
    """The second of two threads is told no; the first goes on and is read."""
    model, ids = make_model("llama"), random_ids(1, 3)
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        if not inside.is_set():
            inside.set()
            assert go_on.wait(60)

    with ThreadPoolExecutor(1) as thread, tapped(model) as (_, seen):
        handle = model.model.layers[1].register_forward_pre_hook(wait)
        first = thread.submit(model, input_ids=ids)
        assert inside.wait(60)
        for _attempt in range(2):
            with pytest.raises(UnsupportedError, match="another thread is inside"):
                model(input_ids=ids)
        go_on.set()
        first.result(60)
        handle.remove()
    assert len(seen) == 1


# Steering


@torch.no_grad()
def test_layers_that_are_not_read_are_steered_too() -> None:
    """Several of them at once, and until they are let go."""
    model, ids = make_model("llama"), random_ids(1, 6)
    found = []
    for layers in ((), (0,), (1,), (0, 1), ()):
        with tapped(model, (BLOCKS,)) as (tap, seen):
            tap.steer({layer: Edit(torch.ones(1, WIDTH)) for layer in layers})
            model(input_ids=ids)
            tap.steer({})
            model(input_ids=ids)
        found.append(seen)
    plain = found[0][0].states[0]
    assert torch.equal(found[4][0].states[0], plain)
    steered = [seen[0].states[0] for seen in found[1:4]]
    for one, other in itertools.combinations([plain, *steered], 2):
        assert not torch.equal(one, other)
    assert all(torch.equal(seen[1].states[0], plain) for seen in found)


@torch.no_grad()
def test_what_one_tap_adds_is_not_read_by_another_at_that_layer() -> None:
    """Two watches on one model, whichever came first."""
    model, ids = make_model("llama"), random_ids(1, 6)
    wanted = states_of(model, ids)
    for steers_first in (True, False):
        with tapped(model) as (outer, seen), tapped(model) as (inner, _):
            (outer if steers_first else inner).steer({1: Edit(torch.ones(1, WIDTH))})
            model(input_ids=ids)
        assert torch.equal(seen[0].states[1], wanted[1])
        assert not torch.equal(seen[0].states[2], wanted[2])


@torch.no_grad()
def test_steering_with_zero_strength_changes_nothing() -> None:
    """The first law of steering."""
    model, ids = make_model("llama"), random_ids(2, 6)
    with tapped(model) as (tap, seen):
        plain = model(input_ids=ids).logits
        tap.steer({layer: Edit(torch.zeros(2, WIDTH)) for layer in range(BLOCKS)})
        steered = model(input_ids=ids).logits
    assert torch.equal(plain, steered)
    assert all(torch.equal(a, b) for a, b in zip(seen[0].states, seen[1].states, strict=True))


@pytest.mark.parametrize("layer", range(BLOCKS))
@torch.no_grad()
def test_steering_shows_in_later_layers_only(layer: int) -> None:
    """A layer is read before it is changed, or a governor would see its own hand."""
    model, ids = make_model("llama"), random_ids(1, 6)
    with tapped(model) as (tap, seen):
        model(input_ids=ids)
        tap.steer({layer: Edit(torch.ones(1, WIDTH))})
        model(input_ids=ids)
        tap.steer({})
        model(input_ids=ids)
    for other in LAYERS:
        same = torch.equal(seen[0].states[other], seen[1].states[other])
        assert same == (other <= layer), f"layer {other}"
        assert torch.equal(seen[0].states[other], seen[2].states[other])


@torch.no_grad()
def test_what_is_added_is_in_units_of_each_states_rms() -> None:
    """A strength must mean the same in a model whose residual is a hundred times as large."""
    model, ids = make_model("llama"), random_ids(2, 6)
    model.model.layers[1].forward = lambda hidden_states, *_, **__: hidden_states
    addition = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(1))
    with tapped(model) as (tap, seen):
        tap.steer({1: Edit(addition)})
        model(input_ids=ids)
    before, after = seen[0].states[1], seen[0].states[2]
    rms = before.pow(2).mean(-1, keepdim=True).sqrt()
    assert torch.allclose(after - before, rms * addition[:, None], atol=1e-5)


@torch.no_grad()
def test_each_row_is_steered_by_its_own_addition() -> None:
    """One chat of a batch may be steered while its neighbour is not."""
    model, ids = make_model("llama"), random_ids(2, 6)
    with tapped(model) as (tap, seen):
        model(input_ids=ids)
        tap.steer({0: Edit(torch.stack([torch.zeros(WIDTH), torch.ones(WIDTH)]))})
        model(input_ids=ids)
    assert torch.equal(seen[0].states[3][0], seen[1].states[3][0])
    assert not torch.equal(seen[0].states[3][1], seen[1].states[3][1])


@torch.no_grad()
def test_a_bfloat16_model_is_steered_in_its_own_dtype() -> None:
    """A float32 residual would stop the next matrix product, or slow it down unseen."""
    model, ids = make_model("llama").to(torch.bfloat16), random_ids(1, 4)
    with tapped(model) as (tap, seen):
        tap.steer({1: Edit(torch.ones(1, WIDTH))})
        model(input_ids=ids)
    assert seen[0].states[2].dtype == torch.bfloat16


def test_a_tap_that_is_off_its_model_does_not_steer() -> None:
    """Hooks set then would never be taken off."""
    model = make_model("llama")
    before = hook_count(model)
    tap = Tap(model, find_blocks(model), LAYERS, ignore)
    tap.steer({})
    with pytest.raises(TapError, match="not on its model"):
        tap.steer({0: Edit(torch.zeros(1, WIDTH))})
    assert hook_count(model) == before


# Generation


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_states_of_generation_equal_one_forward_over_the_whole_text(family: str) -> None:
    """KV cache, left padding and neighbours in the batch must all leave no mark."""
    model, lengths = make_model(family), (4, 7)
    ids, mask = left_padded(lengths)
    seen: list[Forward] = []
    counted: list[int] = []

    def keep(forward: Forward) -> None:
        seen.append(forward)
        counted.append(forward.past)

    with Tap(model, find_blocks(model), LAYERS, keep):
        output = model.generate(
            ids, attention_mask=mask, max_new_tokens=5, min_new_tokens=5, do_sample=False
        )
    assert len(seen) == 5
    width = ids.shape[1]
    assert counted == [0, *range(width, width + 4)]
    for row, length in enumerate(lengths):
        whole = output[row : row + 1, width - length : -1]
        wanted = model(input_ids=whole, output_hidden_states=True).hidden_states
        for layer in LAYERS:
            prompt = seen[0].states[layer][row, width - length :]
            steps = [forward.states[layer][row] for forward in seen[1:]]
            assert close(torch.cat([prompt, *steps]), wanted[layer][0]), f"row {row} layer {layer}"


@torch.no_grad()
def test_columns_in_the_cache_are_counted_with_and_without_a_mask() -> None:
    """transformers 5 drops a mask of ones; positions must not start again."""
    model, ids = make_model("llama"), random_ids(1, 6)
    counted: list[int] = []
    with Tap(model, find_blocks(model), (1,), lambda forward: counted.append(forward.past)):
        cache = model(input_ids=ids[:, :4], use_cache=True).past_key_values
        model(input_ids=ids[:, 4:5], past_key_values=cache, use_cache=True)
        mask = torch.ones(1, 6).long()
        model(input_ids=ids[:, 5:], attention_mask=mask, past_key_values=cache, use_cache=True)
    assert counted == [0, 4, 5]


@torch.no_grad()
def test_a_nudge_before_a_forward_reaches_that_forward() -> None:
    """A new turn drops the old one's steering before its prompt is read."""
    model, ids = make_model("llama"), random_ids(1, 4)
    wanted = states_of(model, ids)
    seen: list[Forward] = []

    def drop(_: Forward) -> bool:
        tap.steer({})
        return True

    tap = Tap(model, find_blocks(model), LAYERS, seen.append, drop)
    with tap:
        tap.steer({0: Edit(torch.ones(1, WIDTH))})
        model(input_ids=ids)
    assert all(torch.equal(f, w) for f, w in zip(seen[0].states, wanted, strict=True))


@torch.no_grad()
def test_a_forward_that_is_not_to_be_read_passes_unread() -> None:
    """As one that drafts candidates with half of the layers, whose hooks do not all fire."""
    model, ids = make_model("llama"), random_ids(1, 4)
    seen: list[Forward] = []
    with Tap(model, find_blocks(model), LAYERS, seen.append, lambda _: False) as tap:
        model(input_ids=ids)
        assert not any(isinstance(state, Tensor) for state in tap._states)
    assert not seen


def test_a_second_thread_is_refused_from_the_first_moment_on() -> None:
    """Also while the first is still looking who calls it, before any state is read."""
    model, ids = make_model("llama"), random_ids(1, 4)
    inside, over = threading.Event(), threading.Event()
    seen: list[Forward] = []

    def wait(_: Forward) -> bool:
        inside.set()
        return over.wait(60)

    with (
        ThreadPoolExecutor(1) as pool,
        Tap(model, find_blocks(model), LAYERS, seen.append, wait),
        torch.no_grad(),
    ):
        first = pool.submit(model, input_ids=ids)
        assert inside.wait(60)
        with pytest.raises(UnsupportedError, match="another thread is inside"):
            model(input_ids=ids)
        over.set()
        first.result(60)
    assert len(seen) == 1
