"""Directions from labelled text: mean differences, and how far they can be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch.errors import TrainingError
from emowatch.model.loading import LoadedModel
from emowatch.workshop.directions import build_vectors
from emowatch.workshop.options import TrainOptions
from tests.workshop.synthetic import read_texts

OPTIONS = TrainOptions(layers="1,2", readout="mean", template=False)


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Give the tiny model as if it had been loaded."""
    return LoadedModel(tiny_model, tiny_tokenizer, "tiny")


@torch.no_grad()
def test_a_direction_is_the_mean_of_a_label_less_the_mean_over_labels(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """As computed from output_hidden_states, text by text."""
    corpus = read_texts(tmp_path / "texts.tsv")
    made = build_vectors(corpus, loaded, OPTIONS, tmp_path / "work")
    means: dict[int, list[np.ndarray]] = {}
    sizes = []
    for example in corpus.examples:
        ids = loaded.tokenizer(example.text, return_tensors="pt")["input_ids"]
        hidden = loaded.model(ids, output_hidden_states=True).hidden_states[1][0]
        means.setdefault(example.label, []).append(hidden.mean(0).numpy())
        sizes.append(float(hidden.mean(0).pow(2).mean().sqrt()))
    by_label = np.stack([np.mean(means[label], axis=0) for label in range(len(corpus.labels))])
    wanted = by_label - by_label.mean(0)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert (made.labels, made.layers) == (corpus.labels, (1, 2))
    np.testing.assert_allclose(made.directions[0], wanted, atol=1e-4)
    assert made.rms[0] == pytest.approx(np.mean(sizes), rel=1e-4)


def test_halves_agree_where_labels_mean_something_and_not_by_chance(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Told beside each other."""
    corpus = read_texts(tmp_path / "texts.tsv")
    data = build_vectors(corpus, loaded, OPTIONS, tmp_path / "work").data
    assert np.shape(data["agreement"]) == np.shape(data["agreement_of_shuffled"])
    assert np.mean(data["agreement"]) > 0.8
    assert abs(np.mean(data["agreement_of_shuffled"])) < 0.4
    assert data["sha256"] == corpus.sha256
    assert set(data["texts"]) == set(corpus.labels)


def test_a_label_with_too_few_texts_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    """Two halves of nothing agree on nothing."""
    corpus = read_texts(tmp_path / "texts.tsv", per_class=3)
    with pytest.raises(TrainingError, match="it has 3 texts, and 4 are the fewest"):
        build_vectors(corpus, loaded, OPTIONS, tmp_path / "work")
