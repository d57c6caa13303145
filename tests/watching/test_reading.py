"""Reading: each score is the right one, and its way to the host changes no bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.watching.reading import fetch, fetch_in_one_copy
from tests.model.zoo import FAMILIES, STATEFUL, make_model, random_ids
from tests.watching.speaking import NEW, PROMPT, bank_for, by_hand, speak

# The right scores


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_computed_from_output_hidden_states(
    family: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The whole way from hook to number, at every position, layer and offset, done by hand."""
    model = make_model(family)
    bank = bank_for(model)
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, layers="all") as watch:
        text = speak(model, ids, min_new_tokens=NEW)[0]
    assert len(watch.trace.tokens) == PROMPT + NEW - 1
    for score in watch.trace.tokens[1 if family in STATEFUL else 0 :]:
        wanted = by_hand(model, bank, text[: score.position + 1], score.position, score.offset or 0)
        assert score.layer_scores is not None
        assert np.allclose(score.layer_scores, wanted.numpy(), atol=3e-5), score.position
        primary = bank.card.layers.index(bank.card.primary)
        assert np.array_equal(score.scores.array, score.layer_scores[primary])
        assert sum(score.scores.values()) == pytest.approx(1.0, abs=1e-5)


def test_the_primary_layer_alone_gives_the_same_scores(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Watching fewer layers is cheaper, and no other measurement."""
    traces = []
    for layers in ("primary", "all"):
        with emowatch.watch(model, tiny_tokenizer, probes=bank, layers=layers) as watch:
            speak(model, random_ids(1, PROMPT))
        traces.append(watch.trace.tokens.array())
    assert np.allclose(traces[0], traces[1], atol=1e-6)


def test_several_banks_score_the_same_states(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each at its own layers, in one forward."""
    banks = [bank_for(model, "one", 1), bank_for(model, "two", 2, layers="1,3")]
    with emowatch.watch(model, tiny_tokenizer, probes=banks) as both:
        speak(model, random_ids(1, PROMPT))
    for bank in banks:
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as alone:
            speak(model, random_ids(1, PROMPT))
        table = both.trace.by_bank[bank.card.name]
        assert np.array_equal(table.array(), alone.trace.tokens.array())
    assert set(both.trace.turns[0].mean_scores) == {"one", "two"}


def test_half_precision_states_are_scored_in_float32(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """In bfloat16 a sum of probabilities may miss one by a percent."""
    model = make_model("llama").to(torch.bfloat16)
    bank = bank_for(model)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        text = speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)[0]
    primary = bank.card.layers.index(bank.card.primary)
    for token in watch.trace.reply():
        assert token.offset is not None
        wanted = by_hand(model, bank, text[:-1], token.position, token.offset)[primary]
        assert np.allclose(token.scores.array, wanted.numpy(), atol=2e-2)
        assert token.scores.array.sum() == pytest.approx(1.0, abs=1e-5)


def test_autocast_does_not_reach_the_heads(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """It is meant for the model; heads were calibrated in float32."""
    prompt = random_ids(1, PROMPT)
    seen: list[Tensor] = []
    primary = bank.card.primary
    model.model.layers[primary].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
            speak(model, prompt, max_new_tokens=1)
    wanted = bank.heads_at((primary,)).scores(seen[0], 0)[0]
    assert np.allclose(watch.trace.tokens.array(), wanted.numpy(), atol=1e-6)


# The way to the host


def test_one_copy_brings_the_same_bits_as_none() -> None:
    """Accelerators take another way than CPUs; whole numbers travel as bits of floats there."""
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(13, 3, 7, generator=generator), torch.rand(1, 3, 2, generator=generator)]
    scores[0][0, 0, 0] = torch.nan
    numbers = [torch.tensor([[5], [0], [151_935]]), torch.tensor([1, 0, 1])]
    direct, copied = fetch(scores, numbers), fetch_in_one_copy(scores, numbers)
    for one, other in zip(direct[0], copied[0], strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype == np.float32
        np.testing.assert_array_equal(one.view(np.int32), other.view(np.int32))
    assert [n.tolist() for n in direct[1]] == [n.tolist() for n in copied[1]]
    assert direct[1][0].tolist() == [5, 0, 151_935]


def test_scores_on_the_host_cannot_be_written_to() -> None:
    """Every plugin sees the same array."""
    (scores,), _ = fetch([torch.rand(2, 1, 3)], [])
    with pytest.raises(ValueError, match="read-only"):
        scores[0, 0] = 1
