"""Weights in eight and four bits: packed tensors of other libraries, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optimum.quanto import freeze, qint4, qint8
from optimum.quanto import quantize as quanto_quantize
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerGroup,
    quantize_,
)
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    QuantoConfig,
    TorchAoConfig,
)

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import ProbeMismatchError
from emowatch.model.blocks import find_blocks
from emowatch.model.readable import check_readable
from emowatch.model.states import read_states
from tests.model.zoo import make_model, random_ids
from tests.watching.speaking import PROMPT, bank_for, speak
from tests.weights.exact import check_exact

FOUR_BITS: torch.dtype = getattr(torch, "int4")  # noqa: B009 - torch does not type it


def int4() -> IntxWeightOnlyConfig:
    """Pack four bits as torchao can on a CPU; its Int4WeightOnlyConfig needs an accelerator."""
    return IntxWeightOnlyConfig(weight_dtype=FOUR_BITS, granularity=PerGroup(32))


def by_quanto(kind: Any) -> Callable[[Any], None]:
    """Quantise with optimum-quanto."""

    def run(model: Any) -> None:
        quanto_quantize(model, weights=kind)
        freeze(model)

    return run


QUANTISERS: dict[str, Callable[[Any], None]] = {
    "torchao int8": lambda model: quantize_(model, Int8WeightOnlyConfig(version=2)),
    "torchao int4": lambda model: quantize_(model, int4()),
    "torchao int8 with int8 activations": lambda model: quantize_(
        model, Int8DynamicActivationInt8WeightConfig()
    ),
    "torchao float8": lambda model: quantize_(model, Float8WeightOnlyConfig()),
    "quanto int8": by_quanto(qint8),
    "quanto int4": by_quanto(qint4),
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "torchao int8": lambda: TorchAoConfig(Int8WeightOnlyConfig(version=2)),
    "torchao int4": lambda: TorchAoConfig(int4()),
    "quanto int8": lambda: QuantoConfig(weights="int8"),
    "quanto int4": lambda: QuantoConfig(weights="int4"),
}


def quantised(how: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """Build a tiny Llama and pack its weights."""
    model = make_model("llama", seed=seed).to(dtype)
    QUANTISERS[how](model)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", QUANTISERS)
def test_packed_weights_are_watched_exactly(
    how: str, dtype: torch.dtype, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """What the blocks hand on are plain states, whatever they compute with."""
    model = quantised(how, dtype)
    check_readable(model)
    check_exact(model, tiny_tokenizer, bank_for(model))


@pytest.mark.parametrize("how", CONFIGS)
def test_a_model_is_packed_while_it_is_loaded(
    how: str, saved_model: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """With a config of transformers, which is how most people do it."""
    model = AutoModelForCausalLM.from_pretrained(
        saved_model, quantization_config=CONFIGS[how](), dtype=torch.float32
    )
    assert type(model.model.layers[1].mlp.up_proj.weight) is not torch.nn.Parameter
    check_exact(model, tiny_tokenizer, bank_for(model))


@pytest.mark.parametrize("how", QUANTISERS)
def test_states_for_training_are_those_that_are_watched(how: str) -> None:
    """A bank may be trained on the packed model itself."""
    model, ids = quantised(how), random_ids(1, PROMPT)
    early = read_states(model, find_blocks(model), (0, 1, 2, 3), ids, torch.ones_like(ids))
    with torch.no_grad():
        wanted = model(ids, output_hidden_states=True).hidden_states
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(early, wanted, strict=True))


# Whose bank it is


@pytest.mark.parametrize("how", QUANTISERS)
def test_packed_weights_are_other_weights_than_those_in_training(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are rounded far more than a dtype rounds; a bank mostly still works, and says so."""
    bank, model = bank_for(make_model("llama")), quantised(how)
    assert bank.check_fits(model, find_blocks(model)) == ["weights"]
    emowatch.watch(model, None, probes=bank)
    assert "was trained with other weights than this model's" in capsys.readouterr().err
    with pytest.raises(ProbeMismatchError, match=r"weights differ \(refused because of --strict"):
        emowatch.watch(model, None, probes=bank, strict=True)


@pytest.mark.parametrize("how", QUANTISERS)
def test_a_bank_of_a_packed_model_knows_it_again(how: str) -> None:
    """And tells it from the same model packed otherwise, and from another one packed alike."""
    bank = bank_for(quantised(how))

    def fits(model: Any) -> list[str]:
        return bank.check_fits(model, find_blocks(model))

    assert fits(quantised(how)) == []
    assert fits(quantised(how, seed=1)) == ["weights"]
    others = [other for other in QUANTISERS if other.split(" ")[1] != how.split(" ")[1]]
    assert others and all(fits(quantised(other)) == ["weights"] for other in others)


def test_each_mode_of_packed_weights_keeps_the_law(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Beams and candidates are followed by their columns, which packing leaves alone."""
    model = quantised("torchao int8")
    bank: ProbeBank = bank_for(model)
    ids = random_ids(1, PROMPT)
    for options in ({"num_beams": 3}, {"prompt_lookup_num_tokens": 3}, {"use_cache": False}):
        plain = speak(model, ids, **options)
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
            said = speak(model, ids, **options)
        assert torch.equal(plain, said)
        assert len(watch.trace.reply()) == said.shape[1] - PROMPT
