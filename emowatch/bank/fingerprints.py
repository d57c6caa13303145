"""Fingerprints of a model and tokenizer, to tell whether a bank belongs to them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

from emowatch.bank.card import Fingerprints
from emowatch.model.blocks import Blocks, text_config
from emowatch.model.weights import numbers_of, process_of

_CONFIG_KEYS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
    "tie_word_embeddings",
)
_ROPE_DEFAULTS = (("rope_type", "default"), ("partial_rotary_factor", 1.0))


def fingerprint(model: nn.Module, blocks: Blocks, tokenizer: Any = None) -> Fingerprints:
    """Take the fingerprints of a model and, where given, its tokenizer."""
    config = text_config(model)
    shape = {key: getattr(config, key, None) for key in _CONFIG_KEYS}
    shape["rope_theta"], more = _rope(config)
    if more:
        shape["rope"] = more
    return Fingerprints(
        config=_hash(json.dumps(shape, sort_keys=True)),
        tokenizer=_hash(_vocabulary(tokenizer)) if tokenizer is not None else "",
        template=_hash(str(getattr(tokenizer, "chat_template", None) or ""))
        if tokenizer is not None
        else "",
        weights=_weights(model, blocks),
    )


def _rope(config: Any) -> tuple[Any, dict[str, Any]]:
    """Give how positions are turned, the same under transformers 4 and 5.

    Returns:
        The base of the angles, and all else that is not as usual.
    """
    found = dict(getattr(config, "rope_parameters", None) or {})  # transformers 5
    found |= dict(getattr(config, "rope_scaling", None) or {})  # 4.x keeps theta apart
    theta = found.get("rope_theta", getattr(config, "rope_theta", None))
    kind = found.get("rope_type", found.pop("type", None)) or "default"
    partial = found.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
    known = found | {"rope_type": kind, "partial_rotary_factor": partial}
    known.pop("rope_theta", None)
    unusual = {k: v for k, v in known.items() if v is not None and (k, v) not in _ROPE_DEFAULTS}
    return theta, unusual


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _vocabulary(tokenizer: Any) -> str:
    return json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1]))


def _weights(model: nn.Module, blocks: Blocks) -> str:
    """Hash 64 numbers of each matrix of the middle block, rounded to bfloat16.

    The rounding lets a model loaded in another float dtype keep its fingerprint; float16 rounds
    first and to other numbers, so there it is mostly another one. Packed weights are hashed as
    they are packed. Unknown, and empty, where this process does not hold them.
    """
    if process_of(model)[1] > 1:
        return ""
    digest = hashlib.sha256()
    middle = blocks.blocks[blocks.n_layers // 2]
    for name, parameter in sorted(middle.named_parameters()):
        if parameter.ndim < 2:
            continue
        numbers = numbers_of(middle, name)
        if not numbers:
            return ""
        digest.update(name.encode())
        for stored in numbers:
            few = stored.flatten()[:64].cpu()
            if few.is_floating_point():
                few = few.to(torch.bfloat16)
            digest.update(few.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
