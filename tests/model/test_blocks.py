"""Blocks: found by structure in any family, and layers named in words people use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from emowatch.errors import ModelError, UnsupportedError, UsageError
from emowatch.model.blocks import find_blocks, resolve_layers
from tests.model.zoo import BLOCKS, FAMILIES, PATHS, VOCABULARY, WIDTH, make_model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_blocks_of_every_family_are_found(family: str) -> None:
    """The search knows no model by name, so each family is a case of its own."""
    model = make_model(family)
    blocks = find_blocks(model)
    assert blocks.path == PATHS[family]
    assert blocks.n_layers == BLOCKS
    assert blocks.d_model == WIDTH
    assert blocks.blocks is model.get_submodule(PATHS[family])
    assert "norm" in type(blocks.final_norm).__name__.lower()


class Stage(nn.Module):
    """A block under a name that says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()
        self.mix = nn.Linear(WIDTH, WIDTH)


class Scale(nn.Module):
    """A norm under a name that says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))


class Stranger(nn.Module):
    """A model none of whose names are known; with as many adapters as it has blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=BLOCKS, hidden_size=WIDTH)
        self.extra = nn.Module()
        self.extra.adapters = nn.ModuleList(nn.Linear(WIDTH, 2) for _ in range(BLOCKS))
        self.body = nn.Module()
        self.body.enter = nn.Embedding(VOCABULARY, WIDTH)
        self.body.first = Scale()
        self.body.stages = nn.ModuleList(Stage() for _ in range(BLOCKS))
        self.body.project = nn.Linear(WIDTH, WIDTH)
        self.body.last = Scale()
        self.head = nn.Linear(WIDTH, VOCABULARY)


def test_blocks_and_norm_of_unknown_names_are_found_by_their_shape() -> None:
    """Whoever writes a model calls its parts as he likes."""
    model = Stranger()
    blocks = find_blocks(model)
    assert blocks.path == "body.stages"
    assert blocks.final_norm is model.body.last


def test_names_decide_between_lists_of_one_length() -> None:
    """A list that stands first is not therefore the blocks."""
    model = make_model("llama")
    adapters = nn.ModuleList(nn.Linear(2, 2) for _ in range(BLOCKS))
    model.model._modules = {"adapters": adapters, **model.model._modules}
    assert find_blocks(model).path == "model.layers"


def test_names_decide_between_modules_shaped_like_a_norm() -> None:
    """Something that scales each channel after the blocks has the weights of a norm too."""
    model = make_model("llama")
    norm = model.model._modules.pop("norm")
    model.model._modules |= {"gain": Scale(), "norm": norm}
    assert find_blocks(model).final_norm is norm


@pytest.mark.parametrize("family", ["gpt2", "bloom", "opt"])
def test_the_final_norm_is_not_the_norm_of_the_embedding(family: str) -> None:
    """Bloom has a norm before the blocks too, and OPT lists the final one before them."""
    model = make_model(family)
    norms = {"gpt2": "ln_f", "bloom": "ln_f", "opt": "final_layer_norm"}
    blocks = find_blocks(model)
    assert blocks.final_norm is getattr(blocks.decoder, norms[family])


def test_a_named_path_wins_over_the_search() -> None:
    """Where the search is wrong the user must be able to say so."""
    model = make_model("llama")
    model.model.spare = nn.ModuleList([*model.model.layers, nn.Linear(1, 1)])
    assert find_blocks(model, "model.spare").n_layers == BLOCKS + 1


def test_a_path_that_leads_nowhere_is_refused_in_words() -> None:
    """A misspelt path is the user's to mend, so it is repeated."""
    with pytest.raises(UsageError, match=r"blocks at 'model\.layer'.*: model\.layers\."):
        find_blocks(make_model("llama"), "model.layer")


def test_a_path_to_something_else_says_what_it_is() -> None:
    """A single block is no list of blocks."""
    with pytest.raises(UsageError, match=r"it is a LlamaDecoderLayer, and a non-empty ModuleList"):
        find_blocks(make_model("llama"), "model.layers.0")


def test_a_model_without_recognisable_blocks_lists_what_it_has() -> None:
    """The message must hold what blocks= can be set to."""
    model = make_model("llama")
    model.model.other = nn.ModuleList([nn.Linear(2, 2)])
    del model.model.layers
    with pytest.raises(UnsupportedError, match=r"model\.other \(1 × Linear\)"):
        find_blocks(model)


def test_blocks_without_a_final_norm_are_refused() -> None:
    """Layer L is defined by that norm."""
    model = make_model("llama")
    del model.model.norm
    with pytest.raises(UnsupportedError, match=r"Could not find the final norm beside 'model\.la"):
        find_blocks(model)


@pytest.mark.parametrize("name", ["T5Config", "BartConfig"])
def test_encoder_decoder_models_are_refused(name: str) -> None:
    """They have two residual streams, and layers are defined for one."""
    options: dict[str, Any] = {
        "vocab_size": 64,
        "d_model": 32,
        "num_layers": 2,
        "num_heads": 4,
        "d_ff": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    }
    config = getattr(transformers, name)(**options)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    with pytest.raises(UnsupportedError, match="it is an encoder-decoder model"):
        find_blocks(model)


def test_a_block_that_stands_at_several_places_is_refused() -> None:
    """Its state would be read as that of each of them."""
    model = make_model("llama")
    model.model.layers[2] = model.model.layers[0]
    with pytest.raises(UnsupportedError, match=r"one block stands at several places of model\.lay"):
        find_blocks(model)


def test_a_module_without_a_config_is_refused() -> None:
    """Any torch module can be handed in."""
    with pytest.raises(ModelError, match="no num_hidden_layers or hidden_size"):
        find_blocks(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ("all", (0, 1, 2, 3, 4)),
        (" all ", (0, 1, 2, 3, 4)),
        ("0,2,4", (0, 2, 4)),
        ("4, 0 ,4", (0, 4)),
        ("25%,50%", (1, 2)),
        ("0%,100%", (0, 4)),
        ("33.4%", (1,)),
        (3, (3,)),
        ("3", (3,)),
        ([4, 1, 1], (1, 4)),
        ((0,), (0,)),
    ],
)
def test_layers_are_named_as_all_numbers_or_shares(spec: Any, layers: tuple[int, ...]) -> None:
    """The grammar of --layers, which three commands and the library share."""
    assert resolve_layers(spec, 4) == layers


@pytest.mark.parametrize("spec", ["5", "-1", 5, [0, 5], "101%", "-1%", "nan%"])
def test_a_layer_outside_the_model_is_refused_with_the_range(spec: Any) -> None:
    """Off by one is the oldest mistake here, so the message says what both ends are."""
    with pytest.raises(UsageError, match=r"0 \(the embedding\) to 4 \(after the final norm\)"):
        resolve_layers(spec, 4)


@pytest.mark.parametrize("spec", ["last", "1.5", "0-3", "%", "all,1", "½"])
def test_words_that_are_no_layers_are_refused_with_the_grammar(spec: str) -> None:
    """Whoever guesses a syntax must be shown the one there is."""
    with pytest.raises(UsageError, match="use all, numbers as in 0,9,18, or 25%,50%"):
        resolve_layers(spec, 4)


@pytest.mark.parametrize("spec", ["", " , ", []])
def test_naming_no_layer_is_refused(spec: Any) -> None:
    """An empty list would make a bank of no heads."""
    with pytest.raises(UsageError, match="No layer was named"):
        resolve_layers(spec, 4)
