"""A bank and its model: what fits is watched, what does not is refused with both names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch.bank import ProbeBank
from emowatch.bank.heads import HEAD_KINDS, HeadKind
from emowatch.errors import ProbeMismatchError, UsageError
from emowatch.labels import EKMAN7
from emowatch.model.blocks import find_blocks
from tests.bank.makers import make_card, make_tensors
from tests.model.zoo import FAMILIES, WIDTH, make_model


def fits(bank: ProbeBank, model: Any, tokenizer: Any = None, **options: Any) -> list[str]:
    """Compare a bank with a model."""
    return bank.check_fits(model, find_blocks(model), tokenizer, **options)


def trained_for(model: Any, tokenizer: Any = None, **changes: Any) -> ProbeBank:
    """Make a bank that carries the fingerprints of a model and tokenizer."""
    from emowatch.bank.fingerprints import fingerprint

    blocks = find_blocks(model)
    card = make_card(
        d_model=blocks.d_model,
        n_layers=blocks.n_layers,
        fingerprints=fingerprint(model, blocks, tokenizer),
        **changes,
    )
    return ProbeBank(card, make_tensors(card))


# Random banks


@pytest.mark.parametrize("head", HEAD_KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_random_bank_fits_its_model_and_can_be_saved(
    tmp_path: Path, family: str, head: HeadKind
) -> None:
    """Tests and benchmarks of others start with one."""
    model = make_model(family)
    bank = ProbeBank.random_for(model, labels=EKMAN7, head=head)
    assert fits(bank, model) == []
    assert bank.card.layers == (0, 1, 2, 3)
    bank.save(tmp_path / "bank")
    back = ProbeBank.from_file(tmp_path / "bank")
    assert back.card == bank.card
    states = torch.randn(4, 2, WIDTH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(back.heads.scores(states, 3), bank.heads.scores(states, 3))
    assert back.heads.scores(states, 3).shape == (4, 2, 7)


def test_a_random_bank_is_the_same_for_the_same_seed() -> None:
    """A test that fails must fail again."""
    model = make_model("llama")
    state = torch.get_rng_state()
    first, second, other = (ProbeBank.random_for(model, seed=seed) for seed in (3, 3, 4))
    assert first.sha256 == second.sha256 != other.sha256
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("layers", "found", "primary"), [("all", (0, 1, 2, 3), 2), ("0,3", (0, 3), 3), (1, (1,), 1)]
)
def test_a_random_bank_is_made_for_the_layers_asked_for(
    layers: Any, found: tuple[int, ...], primary: int
) -> None:
    """In the same words as everywhere."""
    bank = ProbeBank.random_for(make_model("llama"), layers=layers, name="mine")
    assert (bank.card.layers, bank.card.primary, bank.card.name) == (found, primary, "mine")


# Which model it belongs to


def test_a_bank_for_another_shape_names_both_models_and_their_shapes() -> None:
    """Whoever mixes two up must see which two."""
    bank = ProbeBank.random_for(make_model("llama"))
    for changes in ({"hidden_size": 64}, {"num_hidden_layers": 4}):
        with pytest.raises(ProbeMismatchError) as caught:
            fits(bank, make_model("llama", **changes), model_name="owner/other")
        message = str(caught.value)
        assert "'LlamaForCausalLM', not for 'owner/other'" in message
        assert "3 blocks of width 32" in message
        assert ("3 of width 64" if "hidden_size" in changes else "4 of width 32") in message


@pytest.mark.parametrize("other", [f for f in FAMILIES if f != "llama"])
def test_a_bank_for_another_family_of_the_same_shape_is_refused(other: str) -> None:
    """Equal sizes are a coincidence: the states mean something else."""
    bank = ProbeBank.random_for(make_model("llama"))
    with pytest.raises(ProbeMismatchError, match="their configurations differ in shape"):
        fits(bank, make_model(other))


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 300},
        {"num_attention_heads": 8, "head_dim": 8},
        {"num_key_value_heads": 4},
        {"intermediate_size": 128},
        {"head_dim": 16},
    ],
)
def test_a_config_that_differs_anywhere_in_shape_is_refused(changes: dict[str, int]) -> None:
    """No flag gets round it: such weights were never the ones in training."""
    bank = ProbeBank.random_for(make_model("llama"))
    with pytest.raises(ProbeMismatchError, match="was trained for 'LlamaForCausalLM', not for"):
        fits(bank, make_model("llama", **changes))


def test_weights_that_differ_are_reported_and_refused_when_strict(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """A fine-tuned model may well be watched with the bank of its base."""
    bank = trained_for(make_model("llama"), tiny_tokenizer)
    other = make_model("llama", seed=1)
    assert fits(bank, other, tiny_tokenizer) == ["weights"]
    with pytest.raises(ProbeMismatchError, match=r"weights differ \(refused because of --strict"):
        fits(bank, other, tiny_tokenizer, strict=True)
    assert fits(bank, make_model("llama"), tiny_tokenizer, strict=True) == []


def test_a_tokenizer_or_template_that_differs_is_reported(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """The words are the same and their tokens are not."""
    model = make_model("llama")
    bank = trained_for(model, tiny_tokenizer)
    tiny_tokenizer.chat_template = "{{ messages[0].content }}"
    assert fits(bank, model, tiny_tokenizer) == ["template"]
    tiny_tokenizer.add_tokens(["hm"])
    assert fits(bank, model, tiny_tokenizer) == ["tokenizer", "template"]
    with pytest.raises(ProbeMismatchError, match="tokenizer and template differ"):
        fits(bank, model, tiny_tokenizer, strict=True)
    assert fits(bank, model, strict=True) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_same_weights_in_another_dtype_are_the_same(dtype: Any) -> None:
    """A bank trained in float32 is watched in bfloat16 every day."""
    bank = trained_for(make_model("llama"))
    assert fits(bank, make_model("llama").to(dtype), strict=True) == []


# What is in it


def test_heads_of_a_layer_without_one_are_refused(tiny_bank: ProbeBank) -> None:
    """The message lists those there are."""
    bank = ProbeBank.random_for(make_model("llama"), layers="0,2")
    with pytest.raises(UsageError, match=r"has no head for layer 1; its layers are 0, 2"):
        bank.heads_at((0, 1))


def test_heads_at_a_layer_are_those_of_that_layer(tiny_bank: ProbeBank) -> None:
    """Layers are named by their numbers and stored by their places."""
    model = make_model("llama")
    bank = ProbeBank.random_for(model, layers="1,3", labels=EKMAN7)
    states = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    at_three = bank.heads_at((3,)).scores(states[1:], 0)
    assert torch.allclose(at_three[0], bank.heads.scores(states, 0)[1], atol=1e-6)


def test_directions_are_unit_vectors_by_label_and_layer(tiny_bank: ProbeBank) -> None:
    """Steering multiplies them by a strength, so their length must be one."""
    for layer in tiny_bank.card.layers:
        for label in EKMAN7:
            vector = tiny_bank.direction(label, layer)
            assert vector.shape == (WIDTH,)
            assert vector.norm().item() == pytest.approx(1.0, abs=1e-5)
    assert not torch.equal(tiny_bank.direction("joy", 1), tiny_bank.direction("fear", 1))
    assert not torch.equal(tiny_bank.direction("joy", 1), tiny_bank.direction("joy", 2))


@pytest.mark.parametrize(("label", "layer"), [("bliss", 1), ("joy", 4), ("joy", -1)])
def test_a_direction_that_is_not_there_is_refused(
    tiny_bank: ProbeBank, label: str, layer: int
) -> None:
    """A negative layer must not count from the end."""
    with pytest.raises(
        UsageError, match=r"has no direction .* its labels are anger, .* 0, 1, 2, 3"
    ):
        tiny_bank.direction(label, layer)


def test_a_bank_without_directions_says_so() -> None:
    """They are optional."""
    card = make_card()
    tensors = make_tensors(card)
    del tensors["direction"]
    with pytest.raises(UsageError, match="The bank 'mood' holds no directions"):
        ProbeBank(card, tensors).direction("joy", 1)


def test_plugins_are_told_what_a_bank_is_called_and_holds(
    tmp_path: Path, tiny_bank: ProbeBank, tiny_model: LlamaForCausalLM
) -> None:
    """Without torch, and with the hash of the very file."""
    path = tiny_bank.save(tmp_path)
    info = ProbeBank.from_file(path).info
    assert (info.name, info.labels, info.layers) == ("random", EKMAN7, (0, 1, 2, 3))
    assert info.target == "vector"
    import hashlib

    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert np.asarray(info.layers).sum() == 6
