"""Tiny random models of many families, the same each time: three blocks of width 32.

Kept apart from `conftest.py` because tests parametrise over the names before any fixture runs.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from emowatch.model.entrance import Entrance

VOCABULARY = 262
WIDTH = 32
BLOCKS = 3

_GROUPED: dict[str, Any] = {"intermediate_size": 64, "num_key_value_heads": 2}
_NARROW = _GROUPED | {"head_dim": 8}
_EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
_DEEPSEEK = _GROUPED | {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_MAMBA: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
_HYBRID = ["linear_attention", "full_attention", "linear_attention"]
_PLAIN = "model.layers"
_FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaConfig", _GROUPED, _PLAIN),
    "qwen2": ("Qwen2Config", _GROUPED, _PLAIN),
    "qwen2_moe": ("Qwen2MoeConfig", _GROUPED | _EXPERTS, _PLAIN),
    "qwen3": ("Qwen3Config", _NARROW, _PLAIN),
    "qwen3_moe": ("Qwen3MoeConfig", _NARROW | _EXPERTS, _PLAIN),
    "gemma": ("GemmaConfig", _NARROW, _PLAIN),
    "gemma2": ("Gemma2Config", _NARROW, _PLAIN),
    "gemma3": ("Gemma3TextConfig", _NARROW, _PLAIN),
    "mistral": ("MistralConfig", _GROUPED, _PLAIN),
    "ministral": ("MinistralConfig", _NARROW, _PLAIN),
    "mixtral": ("MixtralConfig", _GROUPED | _EXPERTS, _PLAIN),
    "phi": ("PhiConfig", _GROUPED, _PLAIN),
    "phi3": ("Phi3Config", _GROUPED, _PLAIN),
    "phimoe": ("PhimoeConfig", _GROUPED | _EXPERTS, _PLAIN),
    "gpt2": ("GPT2Config", {}, "transformer.h"),
    "gpt_bigcode": ("GPTBigCodeConfig", {}, "transformer.h"),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "attention_types": [[["global", "local", "global"], 1]],
            "num_layers": 3,
            "num_heads": 4,
            "intermediate_size": 64,
        },
        "transformer.h",
    ),
    "gptj": ("GPTJConfig", {"rotary_dim": 4}, "transformer.h"),
    "gpt_neox": ("GPTNeoXConfig", {"intermediate_size": 64}, "gpt_neox.layers"),
    "gpt_oss": ("GptOssConfig", _NARROW | _EXPERTS, _PLAIN),
    "codegen": ("CodeGenConfig", {"rotary_dim": 4, "n_ctx": 256}, "transformer.h"),
    "opt": ("OPTConfig", {"ffn_dim": 64, "word_embed_proj_dim": 32}, "model.decoder.layers"),
    "xglm": ("XGLMConfig", {"ffn_dim": 64}, _PLAIN),
    "bloom": ("BloomConfig", {}, "transformer.h"),
    "mpt": ("MptConfig", {"max_seq_len": 256, "use_cache": True}, "transformer.blocks"),
    "falcon": ("FalconConfig", {}, "transformer.h"),
    "persimmon": ("PersimmonConfig", {"intermediate_size": 64}, _PLAIN),
    "stablelm": ("StableLmConfig", _GROUPED, _PLAIN),
    "starcoder2": ("Starcoder2Config", _GROUPED, _PLAIN),
    "granite": ("GraniteConfig", _GROUPED, _PLAIN),
    "granitemoe": ("GraniteMoeConfig", _GROUPED | _EXPERTS, _PLAIN),
    "olmo": ("OlmoConfig", _GROUPED, _PLAIN),
    "olmo2": ("Olmo2Config", _GROUPED, _PLAIN),
    "olmo3": ("Olmo3Config", _GROUPED, _PLAIN),
    "olmoe": ("OlmoeConfig", _GROUPED | _EXPERTS, _PLAIN),
    "smollm3": ("SmolLM3Config", _GROUPED, _PLAIN),
    "cohere": ("CohereConfig", _GROUPED, _PLAIN),
    "cohere2": ("Cohere2Config", _GROUPED, _PLAIN),
    "deepseek_v2": ("DeepseekV2Config", _DEEPSEEK, _PLAIN),
    "deepseek_v3": ("DeepseekV3Config", _DEEPSEEK, _PLAIN),
    "nemotron": ("NemotronConfig", _GROUPED, _PLAIN),
    "helium": ("HeliumConfig", _NARROW, _PLAIN),
    "glm": ("GlmConfig", _NARROW, _PLAIN),
    "glm4": ("Glm4Config", _NARROW, _PLAIN),
    "exaone4": ("Exaone4Config", _GROUPED, _PLAIN),
    "ernie4_5": ("Ernie4_5Config", _NARROW, _PLAIN),
    "hunyuan": ("HunYuanDenseV1Config", _NARROW, _PLAIN),
    "seed_oss": ("SeedOssConfig", _NARROW, _PLAIN),
    "arcee": ("ArceeConfig", _GROUPED, _PLAIN),
    "apertus": ("ApertusConfig", _GROUPED, _PLAIN),
    # Hybrids, whose blocks mix attention with a recurrent state beside one residual stream.
    "jamba": (
        "JambaConfig",
        _GROUPED
        | {
            "num_experts": 2,
            "mamba_d_state": 4,
            "mamba_dt_rank": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
        },
        _PLAIN,
    ),
    "bamba": ("BambaConfig", _GROUPED | _MAMBA | {"attn_layer_indices": [1]}, _PLAIN),
    "falcon_h1": (
        "FalconH1Config",
        _NARROW | _MAMBA | {"mamba_d_ssm": 32, "mamba_n_heads": 4},
        _PLAIN,
    ),
    "granitemoehybrid": (
        "GraniteMoeHybridConfig",
        _GROUPED
        | _EXPERTS
        | _MAMBA
        | {"layer_types": ["mamba", "attention", "mamba"], "shared_intermediate_size": 32},
        _PLAIN,
    ),
    "recurrent_gemma": (
        "RecurrentGemmaConfig",
        _NARROW | {"lru_width": 32, "attention_window_size": 32},
        _PLAIN,
    ),
    "qwen3_next": (
        "Qwen3NextConfig",
        _NARROW
        | _EXPERTS
        | {
            "layer_types": _HYBRID,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        _PLAIN,
    ),
    "lfm2": (
        "Lfm2Config",
        _GROUPED | {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 8},
        _PLAIN,
    ),
}
FAMILIES = tuple(_FAMILIES)
OLD = transformers.__version__.startswith("4.")
LEAKING = {"falcon_h1", "granitemoehybrid"} if OLD else set[str]()
"""Families whose recurrent state takes up the padding on its left; 5 mended that."""
FORGETFUL = {"jamba", "recurrent_gemma"}
"""Families whose recurrent state transformers does not carry into the next turn's prompt."""
STATEFUL = {"recurrent_gemma"}
"""Families that keep their recurrent state inside the module: a forward over a single token goes
on from the last text."""
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
    """Count all hooks and entrances on all modules."""
    return sum(
        len(module._forward_hooks)
        + len(module._forward_pre_hooks)
        + isinstance(module.forward, Entrance)
        for module in model.modules()
    )


def close(found: Tensor, wanted: Tensor) -> bool:
    """Tell whether states are equal up to the order of additions."""
    return bool((found - wanted).abs().max() <= 2e-5 * wanted.abs().max())


def fail(*_: Any, **__: Any) -> None:
    """Raise, as a hook or a callback might."""
    raise RuntimeError("lightning")
