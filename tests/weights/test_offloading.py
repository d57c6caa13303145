"""Weights that accelerate keeps in memory or on disk until a block needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model, init_empty_weights
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, attach_align_device_hook
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import emowatch
from emowatch.bank.fingerprints import fingerprint
from emowatch.errors import ModelError
from emowatch.model.blocks import find_blocks
from emowatch.model.readable import check_readable
from emowatch.model.states import read_states
from emowatch.model.weights import numbers_of
from tests.model.zoo import make_model, random_ids
from tests.watching.speaking import PROMPT, bank_for
from tests.weights.exact import check_exact

PARTS = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.layers.2", "model.norm")
ON_DISK = dict.fromkeys((*PARTS, "model.rotary_emb", "lm_head"), "cpu") | {
    "model.layers.1": "disk",
    "model.layers.2": "disk",
}


def by_whole_blocks(model: Any, _: Path) -> None:
    """Let one hook bring all weights of a block, as for modules that use their parts' weights."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attach_align_device_hook(
        model,
        execution_device=torch.device("cpu"),
        offload=True,
        weights_map=state,
        preload_module_classes=["LlamaDecoderLayer"],
    )


OFFLOADING: dict[str, Callable[[Any, Path], Any]] = {
    "memory": lambda model, _: cpu_offload(model, execution_device="cpu"),
    "disk": lambda model, folder: disk_offload(model, str(folder), execution_device="cpu"),
    "a map": lambda model, folder: dispatch_model(model, ON_DISK, "cpu", offload_dir=str(folder)),
    "whole blocks": by_whole_blocks,
}


def offloaded(how: str, folder: Path, seed: int = 0) -> Any:
    """Build a tiny Llama and put its weights away."""
    model = make_model("llama", seed=seed)
    OFFLOADING[how](model, folder)
    assert any(parameter.is_meta for parameter in model.parameters())
    return model


@pytest.mark.parametrize("how", OFFLOADING)
# transformers 4 takes the place of the first weight for that of the model.
@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
def test_weights_that_are_put_away_are_watched_exactly(
    how: str, tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """They are on ``meta`` between forwards and yet have values: their hooks bring them."""
    model = offloaded(how, tmp_path)
    trace = check_exact(model, tiny_tokenizer, bank_for(model))
    whole = check_exact(make_model("llama"), tiny_tokenizer, bank_for(make_model("llama")))
    assert list(trace.tokens) == list(whole.tokens)


def test_a_model_is_loaded_with_a_device_map(
    saved_model: Path, tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """As people do whose model does not fit into memory."""
    model = AutoModelForCausalLM.from_pretrained(
        saved_model, device_map=ON_DISK, offload_folder=str(tmp_path)
    )
    assert model.model.layers[1].mlp.up_proj.weight.is_meta
    check_exact(model, tiny_tokenizer, bank_for(model))


@pytest.mark.parametrize("how", OFFLOADING)
def test_states_for_training_are_read_too(how: str, tmp_path: Path) -> None:
    """A forward that ends early must leave the weights put away, for the next one."""
    model, ids = offloaded(how, tmp_path), random_ids(1, PROMPT)
    away = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    for layers in ((0, 1), (1, 3)):
        found = read_states(model, find_blocks(model), layers, ids, torch.ones_like(ids))
        with torch.no_grad():
            wanted = make_model("llama")(ids, output_hidden_states=True).hidden_states
        for layer, states in zip(layers, found, strict=True):
            assert torch.allclose(states, wanted[layer], atol=1e-6)
    assert [name for name, parameter in model.named_parameters() if parameter.is_meta] == away


@pytest.mark.parametrize("how", OFFLOADING)
def test_weights_that_are_put_away_are_known(how: str, tmp_path: Path) -> None:
    """From where they are kept: a bank that belongs here is not doubted, another one is."""
    bank = bank_for(make_model("llama"))
    model = offloaded(how, tmp_path)
    assert bank.check_fits(model, find_blocks(model), strict=True) == []
    other = offloaded(how, tmp_path / "other", seed=1)
    assert bank.check_fits(other, find_blocks(other)) == ["weights"]


# Weights that nobody brings


def test_an_empty_model_is_refused(saved_model: Path) -> None:
    """It would run and yield nothing."""
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(saved_model))
    with pytest.raises(ModelError, match=r"model\.embed_tokens\.weight is on the meta device"):
        check_readable(model)
    assert fingerprint(model, find_blocks(model)).weights == ""
    with pytest.raises(ModelError, match="Load the model's weights first"):
        emowatch.watch(model, None, probes=bank_for(make_model("llama")))


def test_a_hook_that_brings_nothing_excuses_nothing() -> None:
    """accelerate hooks every block that it has dispatched, also those that it never loads."""
    model = make_model("llama")
    model.model.layers[1].to("meta")
    for module in model.modules():
        add_hook_to_module(module, AlignDevicesHook())
    with pytest.raises(ModelError, match=r"model.layers.1.self_attn.q_proj.weight is on the meta"):
        check_readable(model)


def test_a_hook_of_a_block_excuses_its_own_weights_alone(tmp_path: Path) -> None:
    """One block that was put away does not speak for its neighbour that was never loaded."""
    model = offloaded("disk", tmp_path)
    del model.model.layers[2].mlp.up_proj._hf_hook
    with pytest.raises(ModelError, match=r"model.layers.2.mlp.up_proj.weight is on the meta"):
        check_readable(model)


def test_a_chain_of_hooks_is_looked_through() -> None:
    """People append hooks of their own to those of accelerate."""
    linear = nn.Linear(4, 3, bias=False)
    wanted = linear.weight.detach().clone()
    hook = AlignDevicesHook(offload=True, weights_map={"weight": wanted})
    add_hook_to_module(linear, AlignDevicesHook(execution_device="cpu"))
    add_hook_to_module(linear, hook, append=True)
    assert linear.weight.is_meta
    check_readable(linear)
    (found,) = numbers_of(linear, "weight")
    assert torch.equal(found, wanted)
