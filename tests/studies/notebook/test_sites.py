"""Where a block can be entered, in families that build blocks differently."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
)

from emowatch.model.blocks import find_blocks
from emowatch.model.states import read_states
from emowatch.studies.notebook.sites import Site, find_parts, standing

MODELS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
    ),
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=64, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.3)
    ),
    "mpt": lambda: MptForCausalLM(MptConfig(vocab_size=64, d_model=32, n_layers=3, n_heads=4)),
}
KINDS = {
    "llama": {"residual", "attention", "mlp"},
    "bloom": {"residual"},
    "mpt": {"residual", "attention"},
}


@pytest.mark.parametrize("family", MODELS)
def test_only_what_adds_to_the_stream_is_a_site(family: str) -> None:
    """Modules of Bloom and the MLP of MPT give out the whole stream."""
    model = MODELS[family]().eval()
    assert set(find_parts(find_blocks(model)).kinds) == KINDS[family]


@pytest.mark.parametrize("family", MODELS)
def test_what_is_silenced_at_a_site_leaves_the_rest_of_the_stream(family: str) -> None:
    """The residual goes on past an attention or an MLP that adds nothing."""
    model = MODELS[family]().eval()
    blocks = find_blocks(model)
    parts = find_parts(blocks)
    ids = torch.tensor([[5]])
    mask = torch.ones_like(ids)
    for kind in set(parts.kinds) - {"residual"}:
        site = Site(kind, 1)
        silent = {site: lambda rows, states: torch.zeros_like(states)}
        with standing(parts, torch.tensor([0]), silent, []):
            (behind,) = read_states(model, blocks, [2], ids, mask)
        assert float(behind.norm()) > 1e-3
