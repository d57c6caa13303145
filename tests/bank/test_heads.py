"""Heads: all layers at once must equal each head computed slowly by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from emowatch.bank.heads import HEAD_KINDS, MAX_OFFSET, HeadKind, Heads
from tests.bank.makers import make_card, make_tensors

BINS = (0, 1, 64)


def make_heads(kind: HeadKind, seed: int = 0) -> tuple[Heads, dict[str, Tensor]]:
    """Build random heads for two layers, with the tensors they are made of."""
    tensors = make_tensors(make_card(head=kind, bins=BINS), seed)
    own = {k: v for k, v in tensors.items() if k not in ("temperature", "direction")}
    return Heads(kind, own, tensors["temperature"], BINS), tensors


def make_states(rows: int = 3, seed: int = 1) -> Tensor:
    """Draw ``[layers, rows, d_model]``."""
    return torch.randn(2, rows, 4, generator=torch.Generator().manual_seed(seed))


def slowly(kind: HeadKind, tensors: dict[str, Tensor], state: Tensor, layer: int, k: int) -> Tensor:
    """Compute one head on one state as the paper writes it, with the offset concatenated."""
    t = {name: tensor[layer].float() for name, tensor in tensors.items()}
    if kind == "linear":
        return state @ t["weight"] + t["bias"]
    weight = t["weight_in"]
    if kind == "offset-mlp":
        state = torch.cat([state, t["offset_embedding"][min(k, MAX_OFFSET)]])
        weight = torch.cat([weight, t["weight_offset"]])
    return torch.relu(state @ weight + t["bias_in"]) @ t["weight_out"] + t["bias_out"]


@pytest.mark.parametrize("kind", HEAD_KINDS)
@pytest.mark.parametrize("offset", [0, 1, 63, 64, 511, 512, 513, 100_000])
def test_all_layers_at_once_equal_each_head_by_itself(kind: HeadKind, offset: int) -> None:
    """Folding the offset's embedding into biases is a shortcut that must not be seen."""
    heads, tensors = make_heads(kind)
    states = make_states()
    head_logits = heads.head_logits(states, offset)
    assert head_logits.shape == (2, 3, 2)
    for layer in range(2):
        for row in range(3):
            wanted = slowly(kind, tensors, states[layer, row], layer, offset)
            assert torch.allclose(head_logits[layer, row], wanted, atol=1e-5)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_scores_are_probabilities_of_head_logits_over_the_bins_temperature(kind: HeadKind) -> None:
    """A bin reaches from its first offset to just before the next one's."""
    heads, tensors = make_heads(kind)
    states = make_states()
    for offset, place in [(0, 0), (1, 1), (63, 1), (64, 2), (512, 2), (9999, 2)]:
        temperature = tensors["temperature"][:, place, None, None]
        wanted = torch.softmax(heads.head_logits(states, offset) / temperature, dim=-1)
        scores = heads.scores(states, offset)
        assert torch.allclose(scores, wanted, atol=1e-6), f"offset {offset}"
        assert torch.allclose(scores.sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_one_bin_holds_for_all_offsets(kind: HeadKind) -> None:
    """Most banks have one temperature for each layer."""
    tensors = make_tensors(make_card(head=kind, bins=(0,)))
    own = {k: v for k, v in tensors.items() if k not in ("temperature", "direction")}
    heads = Heads(kind, own, tensors["temperature"], (0,))
    flat = heads.head_logits(make_states(), 700) / tensors["temperature"][:, :, None]
    assert torch.allclose(heads.scores(make_states(), 700), flat.softmax(-1), atol=1e-6)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_offsets_by_row_equal_one_offset_at_a_time(kind: HeadKind) -> None:
    """Training reads rows of many offsets in one pass, watching one offset for all rows."""
    heads, _ = make_heads(kind)
    states, offsets = make_states(rows=5), torch.tensor([0, 1, 64, 512, 4000])
    together = heads.scores(states, offsets)
    for row, offset in enumerate(offsets.tolist()):
        alone = heads.scores(states[:, row : row + 1], offset)
        assert torch.allclose(together[:, row : row + 1], alone, atol=1e-6)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_a_score_does_not_depend_on_its_neighbours(kind: HeadKind) -> None:
    """The same chat has the same scores in any batch."""
    heads, _ = make_heads(kind)
    states = make_states(rows=64)
    whole = heads.scores(states, 3)
    for row in (0, 17, 63):
        assert torch.allclose(whole[:, row], heads.scores(states[:, [row]], 3)[:, 0], atol=1e-6)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_heads_of_some_layers_are_those_of_the_stack(kind: HeadKind) -> None:
    """Watching takes the primary layer out of a bank of all layers."""
    heads, _ = make_heads(kind)
    states = make_states()
    for places in ([0], [1], [1, 0], [0, 1]):
        some = heads.only(places)
        assert torch.allclose(some.scores(states[places], 2), heads.scores(states, 2)[places])
    assert heads.only([1]).bins == BINS


@pytest.mark.parametrize("kind", HEAD_KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_states_of_half_precision_are_computed_in_float32(kind: HeadKind, dtype: Any) -> None:
    """The model's dtype says how states are stored, not how probabilities are summed."""
    heads, _ = make_heads(kind)
    states = make_states().to(dtype)
    scores = heads.scores(states, 1)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, heads.scores(states.float(), 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_widened_once(dtype: Any) -> None:
    """A bank may be stored small; it is computed with in float32."""
    tensors = make_tensors(make_card(head="offset-mlp", bins=BINS), dtype=dtype)
    own = {k: v for k, v in tensors.items() if k not in ("temperature", "direction")}
    heads = Heads("offset-mlp", own, tensors["temperature"], BINS)
    head_logits = heads.head_logits(make_states(), 5)
    assert head_logits.dtype == torch.float32
    wanted = slowly("offset-mlp", tensors, make_states()[1, 2], 1, 5)
    assert torch.allclose(head_logits[1, 2], wanted, atol=1e-5)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_reading_changes_neither_states_nor_heads(kind: HeadKind) -> None:
    """The states belong to the model and are still in use."""
    heads, _ = make_heads(kind)
    states = make_states()
    before = states.clone()
    first = heads.scores(states, 1)
    assert torch.equal(states, before)
    assert torch.equal(heads.scores(states, 1), first)


def test_heads_that_are_in_place_already_are_not_copied() -> None:
    """This is asked before every forward."""
    heads, _ = make_heads("offset-mlp")
    assert heads.to(torch.device("cpu")) is heads
    moved = heads.to(torch.device("meta"))
    assert moved is not heads
    assert moved.head_logits(torch.zeros(2, 1, 4, device="meta"), 0).shape == (2, 1, 2)


def test_offsets_past_those_of_the_training_count_as_the_last_one() -> None:
    """Their embeddings were never learned: a long chat must not end in random biases."""
    _, tensors = make_heads("offset-mlp")
    own = {k: v for k, v in tensors.items() if k not in ("temperature", "direction")}
    heads = Heads("offset-mlp", own, tensors["temperature"], BINS, last_offset=70)
    states = make_states()
    last = heads.head_logits(states, 70)
    assert torch.equal(heads.head_logits(states, 71), last)
    assert torch.equal(heads.head_logits(states, MAX_OFFSET), last)
    assert not torch.equal(heads.head_logits(states, 69), last)
