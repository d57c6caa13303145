"""Weights of half precision: the states are the model's own, the heads compute in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import ProbeMismatchError
from emowatch.model.blocks import find_blocks
from tests.model.zoo import left_padded, make_model
from tests.watching.speaking import bank_for, speak
from tests.weights.exact import check_exact

HALF = [torch.bfloat16, torch.float16]


def differing(bank: ProbeBank, model: Any, **options: Any) -> list[str]:
    """Compare a bank with a model."""
    return bank.check_fits(model, find_blocks(model), **options)


PRECISIONS = [
    *((family, dtype) for family in ("llama", "gpt2", "gemma3", "mixtral") for dtype in HALF),
    *((family, torch.float64) for family in ("llama", "gpt2", "gemma3")),  # torch has no such MoE
]


@pytest.mark.parametrize(("family", "dtype"), PRECISIONS)
def test_each_precision_is_scored_in_float32(
    family: str, dtype: torch.dtype, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Heads of eight bits would add their own error to that of the model."""
    model = make_model(family).to(dtype)
    check_exact(model, tiny_tokenizer, bank_for(model))


@pytest.mark.parametrize("dtype", HALF)
def test_a_model_is_loaded_in_half_precision(
    saved_model: Any, dtype: torch.dtype, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """As most people do."""
    model = AutoModelForCausalLM.from_pretrained(saved_model, dtype=dtype)
    assert model.dtype == dtype
    check_exact(model, tiny_tokenizer, bank_for(model))


@pytest.mark.parametrize("dtype", HALF)
def test_autocast_around_generate_reaches_the_model_and_not_the_heads(
    dtype: torch.dtype, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The states are rounded there, so they are other ones than without, and told as such."""
    model = make_model("llama")
    bank = bank_for(model)
    with torch.autocast("cpu", dtype=dtype):
        rounded = check_exact(model, tiny_tokenizer, bank)
    full = check_exact(model, tiny_tokenizer, bank)
    first, second = (trace.tokens[0].layer_scores for trace in (rounded, full))
    assert first is not None and second is not None
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("dtype", HALF)
def test_scores_of_half_precision_are_near_those_of_full(
    dtype: torch.dtype, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Otherwise a bank that was trained in float32 would be worth nothing here."""
    ids, mask = left_padded((3, 7))
    bank = bank_for(make_model("llama"))
    seen = []
    for of in (torch.float32, dtype):
        model = make_model("llama").to(of)
        with emowatch.watch(model, tiny_tokenizer, probes=bank, layers="all") as watch:
            speak(model, ids, mask, max_new_tokens=1)
        seen.append(np.stack([token.layer_scores for token in watch.trace.tokens]))  # type: ignore[misc]
    assert np.abs(seen[0] - seen[1]).max() < (0.01 if dtype == torch.float16 else 0.03)


# Whose bank it is


def test_a_model_in_bfloat16_is_known_as_the_one_that_was_trained_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Loading it so is what everybody does, and nothing to be warned of."""
    bank = bank_for(make_model("llama"))
    for dtype in (torch.bfloat16, torch.float64):
        model = make_model("llama").to(dtype)
        assert differing(bank, model, strict=True) == []
        emowatch.watch(model, None, probes=bank)
    assert "weights" not in capsys.readouterr().err


def test_weights_in_float16_are_told_of_as_a_doubt(capsys: pytest.CaptureFixture[str]) -> None:
    """It rounds twice what is hashed after one rounding, so that nobody can tell.

    To say that the weights are others would be wrong for most who read it.
    """
    bank = bank_for(make_model("llama"))
    model = make_model("llama").half()
    assert differing(bank, model) == ["weights (or the same before float16)"]
    emowatch.watch(model, None, probes=bank)
    told = capsys.readouterr().err
    assert "was trained with other weights (or the same before float16) than this model's" in told
    with pytest.raises(ProbeMismatchError, match=r"the same before float16\) differ .*--strict"):
        differing(bank, model, strict=True)


def test_the_same_weights_in_float16_are_known_where_nothing_was_lost() -> None:
    """A model that is stored in bfloat16 or float16 has no more digits to lose."""
    for stored in HALF:
        bank = bank_for(make_model("llama").to(stored))
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            model = make_model("llama").to(stored).to(dtype)
            assert differing(bank, model, strict=True) == [], (stored, dtype)


def test_other_weights_in_half_precision_are_told_of() -> None:
    """The rounding must not hide a fine-tuned model."""
    bank = bank_for(make_model("llama"))
    assert differing(bank, make_model("llama", seed=1).bfloat16()) == ["weights"]
    assert len(differing(bank, make_model("llama", seed=1).half())) == 1
