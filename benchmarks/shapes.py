"""Random-weight models of known shape, and texts of known length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

LENGTHS = (1, 5, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22, 24, 26, 28, 30, 32, 34, 38, 64)
"""Twenty-quantiles of the token counts of GoEmotions train messages (43,410 rows) under the demo
model's tokenizer, mean 20; the longest, of 1,458, is cut to 64."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a Llama whose input and output embeddings are one."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int


LLAMAS: Mapping[str, Shape] = {
    "50m": Shape(10, 512, 8, 8, 1536, 32_000),
    "135m": Shape(30, 576, 9, 3, 1536, 49_152),
    "500m": Shape(24, 896, 14, 2, 4864, 151_936),
}
"""Of 50, 135 (SmolLM-135M) and 494 million parameters (Qwen2.5-0.5B, less the biases of its
attention)."""


def llama(
    name: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> LlamaForCausalLM:
    """Build one of `LLAMAS` with random weights, the same each time; it never ends a reply."""
    shape = LLAMAS[name]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.inner,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    model: Any = LlamaForCausalLM(config)
    made: LlamaForCausalLM = model.to(device=device, dtype=dtype).eval()
    return made


def words(vocabulary: int) -> Any:
    """Make a tokenizer whose every token is a word of its own."""
    numbered = {f"t{token}": token for token in range(vocabulary)}
    kind: Any = PreTrainedTokenizerFast  # transformers 5 types half of it
    return kind(
        tokenizer_object=Tokenizer(models.WordLevel(numbered, unk_token="t0")),
        pad_token="t0",
        eos_token="t0",
    )


def qwen3_50m(dtype: torch.dtype = torch.float32) -> Any:
    """Build a Qwen3 of 57 M parameters: d 512, 12 layers, vocabulary 32,000."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32_000,
        hidden_size=512,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=64,
        intermediate_size=1536,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    model.bfloat16() if dtype == torch.bfloat16 else model.float()
    return model.eval()


def goemotions_like(count: int, seed: int = 0) -> list[list[int]]:
    """Draw token sequences with the lengths of GoEmotions messages."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, len(LENGTHS) - 1, size=count)
    lengths = np.interp(places, np.arange(len(LENGTHS)), LENGTHS).round().astype(int)
    return [rng.integers(1, 32_000, size=max(1, n)).tolist() for n in lengths]
