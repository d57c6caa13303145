"""Tokenizer, chat template and architecture of the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch.demo.recipe.corpus import Document

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
ROLE_TOKENS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL_TOKENS = [PAD, BOS, END, *ROLE_TOKENS.values()]
VOCABULARY = 6144
CONTEXT = 1024
OPENING = 12
"""Tokens at the start of a reply that set its tone."""

CHAT_TEMPLATE = (
    "{{- '<|bos|>' -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] | trim + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] | trim + '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str], out: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of `VOCABULARY` tokens and write it to the folder `out`."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLE_TOKENS.values()),
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    save_tokenizer(tokenizer, out)
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the tokenizer in the form that transformers 4.57 reads as well as 5."""
    tokenizer.save_pretrained(out)
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for name in ("backend", "is_local", "local_files_only"):
        config.pop(name, None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # 5 writes names that 4.57 lacks
    extra = config.pop("extra_special_tokens", None)  # 4.57 has written the old name already
    config["additional_special_tokens"] = extra or config["additional_special_tokens"]
    config["model_input_names"] = ["input_ids", "attention_mask"]  # else 4.57 adds types
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Open the tokenizer written by `train_tokenizer`."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path, trust_remote_code=False)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def encode(
    tokenizer: PreTrainedTokenizerFast,
    document: Document,
    *,
    user_weight: float,
    opening_weight: float = 1.0,
) -> tuple[list[int], list[float]]:
    """Return token ids and a loss weight for each; equal to the chat template's rendering.

    What the assistant says weighs 1, its first `OPENING` tokens `opening_weight`, since they set
    the tone; what the user says weighs `user_weight`, markup of others 0.
    """
    core = tokenizer.backend_tokenizer
    special = {token: number for number, token in enumerate(SPECIAL_TOKENS)}  # as trained
    ids, weights = [special[BOS]], [0.0]
    for role, text in document:
        content = [*core.encode(text.strip(), add_special_tokens=False).ids, special[END]]
        weight = {"assistant": 1.0, "user": user_weight, "system": 0.0}[role]
        ids += [special[ROLE_TOKENS[role]], *content]
        weights += [0.0, *[weight] * len(content)]
        if role == "assistant":
            for place in range(len(weights) - len(content), len(weights))[:OPENING]:
                weights[place] = opening_weight
    return ids, weights


def new_model() -> LlamaForCausalLM:
    """Build the untrained model: 8.4 M parameters, 8 blocks, d_model 256."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=768,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)
