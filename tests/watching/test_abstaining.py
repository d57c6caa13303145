"""Distances and label sets while watching: each is the right one, and scores are as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.records import TokenScore
from emowatch.trace import Trace
from emowatch.watching.reading import fetch_in_one_copy, make_readers
from tests.model.zoo import left_padded, random_ids
from tests.watching.speaking import NEW, PROMPT, Plugin, bank_for, speak, surer

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "look-up": {"prompt_lookup_num_tokens": 3},
    "without a cache": {"use_cache": False},
}


@torch.no_grad()
def distance_by_hand(model: Any, bank: ProbeBank, text: torch.Tensor, score: TokenScore) -> float:
    """Measure one state of ``[time]`` ids from output_hidden_states."""
    hidden = model(text[None], output_hidden_states=True).hidden_states
    state = hidden[bank.card.primary][0, score.position]
    assert bank.distance is not None
    return float(bank.distance.of(state[None], score.offset or 0))


@pytest.mark.parametrize("layers", ["primary", "all"])
@pytest.mark.parametrize("way", WAYS)
def test_distances_are_those_of_the_states_that_speak(
    model: Any,
    tiny_tokenizer: PreTrainedTokenizerFast,
    way: str,
    layers: Literal["primary", "all"],
) -> None:
    """The law of scores holds for them too, however a model decodes."""
    bank = surer(bank_for(model))
    with emowatch.watch(model, tiny_tokenizer, probes=bank, layers=layers) as watch:
        text = speak(model, random_ids(1, PROMPT), min_new_tokens=NEW, **WAYS[way])[0]
    assert len(watch.trace.reply()) == NEW
    found = [score.distance for score in watch.trace.tokens]
    wanted = [distance_by_hand(model, bank, text, score) for score in watch.trace.tokens]
    assert found == pytest.approx(wanted, abs=1e-4)
    assert {score.abstains for score in watch.trace.tokens} == {False, True}


def test_padding_and_other_rows_change_no_distance(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """In a batch each row has its own."""
    bank = surer(bank_for(model))
    ids, mask = left_padded((4, PROMPT))
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as both:
        speak(model, ids, mask, min_new_tokens=NEW)
    for row, length in enumerate((4, PROMPT)):
        with emowatch.watch(model, tiny_tokenizer, probes=bank) as alone:
            speak(model, ids[row : row + 1, -length:], min_new_tokens=NEW)
        found = [score.distance for score in both.trace.reply(sequence=row)]
        assert found == pytest.approx([s.distance for s in alone.trace.reply()], abs=1e-4)


def test_a_bank_that_abstains_scores_as_it_did_before(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Beside another bank that knows nothing of distances."""
    bank, other = surer(bank_for(model)), bank_for(model, "other", 2)
    plain = ProbeBank(
        replace(bank.card, uncertainty=None),
        {k: v for k, v in bank.tensors.items() if not k.startswith("state_")},
    )
    tables = []
    for banks in ([bank, other], [plain, other]):
        with emowatch.watch(model, tiny_tokenizer, probes=banks, layers="all") as watch:
            speak(model, random_ids(1, PROMPT))
        tables.append(watch.trace.by_bank)
    for name in ("mood", "other"):
        assert np.array_equal(tables[0][name].array(), tables[1][name].array())
        for one, same in zip(tables[0][name], tables[1][name], strict=True):
            assert one.layer_scores is not None and same.layer_scores is not None
            assert np.array_equal(one.layer_scores, same.layer_scores)
    assert all(score.distance is None for score in tables[0]["other"])
    assert all(score.label_set == () for score in tables[1]["mood"])


def test_plugins_hear_distances_and_sets(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """As plain values, the same that the trace keeps."""
    plugin, bank = Plugin(), surer(bank_for(model))
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert plugin.heard == list(watch.trace.tokens)
    for score in plugin.heard:
        assert type(score.distance) is float
        assert (len(score.label_set) > 0) == (score.offset is not None)


def test_a_recorded_session_knows_its_sets_without_the_model(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The rule travels in the session line, a distance in each token's."""
    bank, path = surer(bank_for(model)), tmp_path / "t.jsonl"
    with emowatch.watch(
        model, tiny_tokenizer, probes=bank, plugins=[f"jsonl-log:path={path}"]
    ) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    back = Trace.load(path)
    assert back.session.banks == watch.trace.session.banks
    for one, same in zip(watch.trace.tokens, back.tokens, strict=True):
        assert one.label_set == same.label_set
        assert one.abstains == same.abstains
        assert one.distance == pytest.approx(same.distance, abs=1e-6)


def test_a_state_that_is_no_number_is_told_whatever_the_bank(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caution looks at scores, wherever the distance stands."""
    model.model.layers[2].mlp.down_proj.weight.data[:] = torch.nan
    bank = surer(bank_for(model))
    with emowatch.watch(model, tiny_tokenizer, probes=bank, layers="all") as watch:
        speak(model, random_ids(1, PROMPT), max_new_tokens=1)
    assert "the model computes NaN" in capsys.readouterr().err
    assert bank.card.primary == 2
    assert all(np.isfinite(score.distance or 0) for score in watch.trace.tokens)


def test_the_distance_travels_in_the_copy_of_the_scores(model: Any) -> None:
    """One column of one bank; a second copy would wait for the device again."""
    bank = surer(bank_for(model))
    (reader,), wanted = make_readers([bank], "all")
    states = [torch.randn(2, 3, bank.card.d_model) for _ in wanted]
    scores = reader.score(states, 0)
    assert scores.shape == (len(wanted), 6, len(bank.card.labels) + 1)
    (made,), _ = fetch_in_one_copy([scores], [])
    assert np.array_equal(made, scores.numpy())
    plain, _ = make_readers([bank_for(model)], "all")
    assert plain[0].score(states, 0).shape[-1] == len(bank.card.labels)
