"""Bad input: refused in words before anything is scored, or said aloud where it goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import EmowatchError
from tests.model.zoo import OLD, hook_count, left_padded, make_model, random_ids
from tests.watching.speaking import NEW, PROMPT, bank_for, speak


def vision_model() -> Any:
    """Build a model that sees and says nothing."""
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=32
    )
    return transformers.ViTModel(config).eval()


def encoder_decoder() -> Any:
    """Build a model with two stacks of blocks."""
    config = transformers.T5Config(vocab_size=64, d_model=32, num_layers=3, num_heads=4, d_kv=8)
    return transformers.T5ForConditionalGeneration(config).eval()


def unloaded() -> Any:
    """Build a model without numbers."""
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(make_model("llama").config)


MODELS = {
    "vision": (vision_model, "ViTModel: it generates no text"),
    "without a head": (lambda: make_model("llama").model, "LlamaModel: it generates no text"),
    "encoder-decoder": (encoder_decoder, "it is an encoder-decoder model"),
    "too narrow": (lambda: make_model("llama", hidden_size=16), "3 blocks of width 32"),
    "too short": (lambda: make_model("llama", num_hidden_layers=2), "this model has 2 of width 32"),
    "on meta": (unloaded, "is on the meta device and has no values"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_cannot_be_watched_is_refused(bank: ProbeBank, kind: str) -> None:
    """Before a hook is set."""
    make, sentence = MODELS[kind]
    model = make()
    hooks = hook_count(model)
    with pytest.raises(EmowatchError, match=sentence):
        emowatch.watch(model, None, probes=bank)
    assert hook_count(model) == hooks


def test_unknown_layers_are_refused(model: Any, bank: ProbeBank) -> None:
    """They were taken for the primary one."""
    with pytest.raises(EmowatchError, match=r"layers='every': it is \"primary\" or \"all\""):
        emowatch.watch(model, None, probes=bank, layers="every")  # type: ignore[arg-type]


def test_what_is_no_tokenizer_is_refused(model: Any, bank: ProbeBank) -> None:
    """As where the arguments change places."""
    with pytest.raises(EmowatchError, match="Could not use a LlamaForCausalLM as the model's"):
        emowatch.watch(model, model, probes=bank)


@pytest.mark.skipif(OLD, reason="transformers 4 fails before it calls the model")
def test_an_empty_prompt_is_refused(model: Any, bank: ProbeBank) -> None:
    """transformers would speak of shapes."""
    with emowatch.watch(model, None, probes=bank) as watch:
        with pytest.raises(EmowatchError, match="an empty prompt"):
            speak(model, torch.zeros(1, 0, dtype=torch.long))
        speak(model, random_ids(1, PROMPT))
    assert len(watch.trace.reply()) == NEW


def test_rows_of_very_different_lengths_are_scored_as_alone(model: Any, bank: ProbeBank) -> None:
    """One token and two hundred, one beside the other."""
    ids, mask = left_padded((1, 200))
    with emowatch.watch(model, None, probes=bank) as together:
        speak(model, ids, mask, eos_token_id=None)
    with emowatch.watch(model, None, probes=bank) as alone:
        speak(model, ids[:1, -1:], eos_token_id=None)
    mine = [t for t in together.trace.tokens if t.sequence == 0]
    assert [t.position for t in mine] == list(range(NEW))
    for found, wanted in zip(mine, alone.trace.tokens, strict=True):
        assert np.allclose(found.scores.array, wanted.scores.array, atol=1e-5)


def test_a_model_that_computes_nan_is_told_once(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN is above no threshold, so that a silent one would read as calm."""
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    with emowatch.watch(model, None, probes=bank) as watch:
        for seed in (1, 2):
            speak(model, random_ids(1, PROMPT, seed))
    told = capsys.readouterr().err
    assert told.count("the model computes NaN") == 1
    assert np.isnan(watch.trace.reply()[-1].scores.array).all()


def test_nan_in_any_row_is_told(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """One text meets the damaged weight, and the last of the batch does not."""
    model.model.embed_tokens.weight.data[40] = torch.nan
    ids = random_ids(2, PROMPT)
    ids[ids == 40], ids[0, 2] = 41, 40
    with emowatch.watch(model, None, probes=bank):
        speak(model, ids)
    assert capsys.readouterr().err.count("the model computes NaN") == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_text_beyond_the_context_is_told_once(
    bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most families go on speaking there, and nobody trained them to."""
    model = make_model("llama", max_position_embeddings=10)
    with emowatch.watch(model, None, probes=bank_for(model)):
        speak(model, random_ids(1, PROMPT), max_new_tokens=3, eos_token_id=None)
        assert "context" not in capsys.readouterr().err
        for _ in range(2):
            speak(model, random_ids(1, PROMPT), max_new_tokens=8, eos_token_id=None)
    assert capsys.readouterr().err.count("longer than the model's context of 10 tokens") == 1


def test_a_dialogue_without_a_template_is_text(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A base model completes what it is given, and whoever typed it is its user."""
    tiny_tokenizer.chat_template = None
    tokens = list(
        emowatch.stream(model, tiny_tokenizer, "once upon", probes=bank, max_new_tokens=2)
    )
    assert [token.offset for token in tokens] == [0, 1]
