"""Reading states offline: the same numbers, only as deep as asked, and nothing left behind."""

from __future__ import annotations

import pytest
import torch

from emowatch.model.blocks import find_blocks
from emowatch.model.states import read_states
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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_reading_offline_equals_each_text_read_alone(family: str, side: str) -> None:
    """Heads are trained on padded batches and score single rows: both must be the same states."""
    model, lengths = make_model(family), (5, 9)
    ids, mask = left_padded(lengths)
    if side == "right":
        ids, mask = ids.flip(1), mask.flip(1)
    states = read_states(model, find_blocks(model), LAYERS, ids, mask)
    for row, length in enumerate(lengths):
        kept = mask[row].bool()
        alone = ids[row, kept][None]
        wanted = model(input_ids=alone, output_hidden_states=True).hidden_states
        for layer in LAYERS:
            assert states[layer][row, kept].shape == (length, WIDTH)
            assert close(states[layer][row, kept], wanted[layer][0]), f"row {row} layer {layer}"


@torch.no_grad()
def test_what_a_selection_returns_is_kept_instead_of_the_states() -> None:
    """A batch of whole states at all layers may not fit in memory."""
    model, (ids, mask) = make_model("llama"), left_padded((3, 6))
    blocks = find_blocks(model)
    last = read_states(model, blocks, (1, 3), ids, mask, lambda states: states[:, -1])
    whole = read_states(model, blocks, (1, 3), ids, mask)
    assert [tuple(state.shape) for state in last] == [(2, WIDTH)] * 2
    assert all(torch.equal(f, w[:, -1]) for f, w in zip(last, whole, strict=True))


@pytest.mark.parametrize("deepest", range(BLOCKS + 1))
def test_reading_stops_at_the_deepest_layer_asked_for(deepest: int) -> None:
    """Extraction of a quarter of a model must cost a quarter."""
    model, ids = make_model("llama"), random_ids(1, 4)
    ran: list[str] = []
    for number, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda *_, n=number: ran.append(f"block {n}"))
    model.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    read_states(model, find_blocks(model), (0, deepest), ids, torch.ones_like(ids))
    assert ran == [f"block {n}" for n in range(deepest)]


@pytest.mark.parametrize("deepest", [1, BLOCKS])
def test_reading_offline_leaves_no_hooks(deepest: int) -> None:
    """It ends its own forward with an exception, and other people's end it too."""
    model, ids = make_model("llama"), random_ids(1, 4)
    before = hook_count(model)
    read_states(model, find_blocks(model), (deepest,), ids, torch.ones_like(ids))
    assert hook_count(model) == before
    model.model.layers[0].forward = fail
    with pytest.raises(RuntimeError, match="lightning"):
        read_states(model, find_blocks(model), (deepest,), ids, torch.ones_like(ids))
    assert hook_count(model) == before
