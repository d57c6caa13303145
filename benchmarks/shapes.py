"""Random-weight models of known shape, and texts of known length."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

LENGTHS = (1, 5, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22, 24, 26, 28, 30, 32, 34, 38, 64)
"""Twenty-quantiles of the token counts of GoEmotions train messages (43,410 rows) under the demo
model's tokenizer, mean 20; the longest, of 1,458, is cut to 64."""


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
