"""The doctor looks into weights of every kind: healthy ones pass, damaged ones are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import emowatch
from emowatch.bank import ProbeBank
from emowatch.doctor import examine, render_table
from tests.model.zoo import make_model
from tests.weights.test_offloading import OFFLOADING, offloaded
from tests.weights.test_quantised import QUANTISERS, quantised


@pytest.mark.parametrize("how", QUANTISERS)
def test_a_packed_model_passes(how: str) -> None:
    """Its weights are tensors of a library's own class, made of several plain ones.

    Activations of eight bits are rounded by what is computed together, which the doctor tells on
    processors where that makes a difference.
    """
    certificate = examine(quantised(how), None)
    rounded = {
        "left padding",
        "cached decoding",
        "several replies",
        "padded batch",
        "next turn",
        "prompt in chunks",
        "candidates",
        "beam search",
        "static cache",
    }
    allowed = rounded if "activations" in how else set()
    assert {check.name for check in certificate.failed} <= allowed, render_table(certificate)
    # Every score is in its place, and off by the rounding alone.
    off = [check.measured for check in certificate.failed]
    assert all(isinstance(error, float) and error < 0.05 for error in off)


@pytest.mark.parametrize("how", OFFLOADING)
# transformers 4 takes the place of the first weight for that of the model.
@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
def test_a_model_whose_weights_are_put_away_passes(how: str, tmp_path: Path) -> None:
    """They are on meta between forwards, and the prompt must not go there."""
    certificate = examine(offloaded(how, tmp_path), None)
    assert certificate.passed, render_table(certificate)


def test_a_damaged_scale_is_found() -> None:
    """A packed weight is damaged where one of its parts is."""
    model = quantised("torchao int8")
    weight = model.model.layers[0].self_attn.q_proj.weight
    for name in weight.__tensor_flatten__()[0]:
        part = getattr(weight, name)
        if part.is_floating_point():
            part.data.fill_(torch.nan)
    failed = {check.name for check in examine(model, None).failed}
    assert "finite weights" in failed


# peft asks transformers by a name that is to go.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_a_model_with_adapters_passes(tiny_bank: ProbeBank, tiny_model: Any) -> None:
    """It is the model inside that is watched, and that the certificate is remembered with."""
    kind: Any = LoraConfig
    adapted: Any = get_peft_model(
        tiny_model, kind(target_modules=["q_proj"], init_lora_weights=False)
    )
    certificate = examine(adapted.eval(), None)
    assert certificate.passed, render_table(certificate)
    watch = emowatch.watch(adapted, None, probes=tiny_bank)
    assert watch.session.certificate == certificate.to_json()


def test_a_plain_model_passes() -> None:
    """The measure of all others."""
    assert examine(make_model("llama"), None).passed
