"""Tiny random models of many families, the same each time: three blocks of width 32.

Kept apart from `conftest.py` because tests parametrise over the names before any fixture runs.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

VOCABULARY = 262
WIDTH = 32
BLOCKS = 3

_GROUPED: dict[str, Any] = {"intermediate_size": 64, "num_key_value_heads": 2}
_FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaConfig", _GROUPED, "model.layers"),
    "qwen2": ("Qwen2Config", _GROUPED, "model.layers"),
    "qwen3": ("Qwen3Config", _GROUPED | {"head_dim": 8}, "model.layers"),
    "gemma2": ("Gemma2Config", _GROUPED | {"head_dim": 8}, "model.layers"),
    "mistral": ("MistralConfig", _GROUPED, "model.layers"),
    "phi": ("PhiConfig", _GROUPED, "model.layers"),
    "gpt2": ("GPT2Config", {}, "transformer.h"),
    "gpt_neox": ("GPTNeoXConfig", {"intermediate_size": 64}, "gpt_neox.layers"),
    "opt": ("OPTConfig", {"ffn_dim": 64, "word_embed_proj_dim": 32}, "model.decoder.layers"),
    "falcon": ("FalconConfig", {}, "transformer.h"),
    "bloom": ("BloomConfig", {}, "transformer.h"),
    "olmo2": ("Olmo2Config", _GROUPED, "model.layers"),
}
FAMILIES = tuple(_FAMILIES)
PATHS = {family: path for family, (_, _, path) in _FAMILIES.items()}


def make_model(family: str, seed: int = 0, **changes: Any) -> Any:
    """Build a random model of one family, in evaluation mode."""
    name, options, _ = _FAMILIES[family]
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        # The usual 0.02 makes a model of this size say one token for ever.
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config = getattr(transformers, name)(**common | options | changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def random_ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Draw ``[rows, length]`` ordinary tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(6, VOCABULARY, (rows, length), generator=generator)


def left_padded(lengths: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw a batch of texts of these lengths, padded on the left, with its mask."""
    width = max(lengths)
    ids, mask = random_ids(len(lengths), width, seed), torch.ones(len(lengths), width).long()
    for row, length in enumerate(lengths):
        ids[row, : width - length] = 0
        mask[row, : width - length] = 0
    return ids, mask


def hook_count(model: nn.Module) -> int:
    """Count all hooks on all modules."""
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def close(found: Tensor, wanted: Tensor) -> bool:
    """Tell whether states are equal up to the order of additions."""
    return bool((found - wanted).abs().max() <= 2e-5 * wanted.abs().max())


def fail(*_: Any, **__: Any) -> None:
    """Raise, as a hook or a callback might."""
    raise RuntimeError("lightning")
