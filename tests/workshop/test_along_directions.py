"""Heads that see a state through named directions alone, and an alarm that reads them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch.bank.heads import Heads
from emowatch.demo.recipe.exchanges import own_message
from emowatch.errors import UsageError, VectorsError
from emowatch.labels import EKMAN7
from emowatch.model.loading import LoadedModel, load_model
from emowatch.streaming.prompts import encode_prompt
from emowatch.vectors import Vectors
from emowatch.vectors.file import unit
from emowatch.watching import watch
from emowatch.workshop.corpora import read_corpus
from emowatch.workshop.directions import build_vectors
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.outputs import check_head
from emowatch.workshop.pipeline import evaluate_bank, train_bank
from emowatch.workshop.training import HeadTrainer
from tests.workshop.synthetic import read_texts

OPTIONS = TrainOptions(head="linear", readout="mean", template=False, layers="1,2")


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Give the tiny model as the loader would."""
    return LoadedModel(tiny_model, tiny_tokenizer, "tiny")


@pytest.fixture
def named(loaded: LoadedModel, tmp_path: Path) -> Vectors:
    """Build the directions of three labels."""
    return build_vectors(read_texts(tmp_path / "v.tsv"), loaded, OPTIONS, tmp_path / "v")


def random_vectors(d_model: int, layers: tuple[int, ...] = (1, 2), count: int = 3) -> Vectors:
    """Draw directions that mean nothing."""
    drawn = np.random.default_rng(0).normal(size=(len(layers), count, d_model)).astype(np.float32)
    return Vectors(
        labels=EKMAN7[:count],
        layers=layers,
        directions=unit(drawn),
        rms=np.ones(len(layers), dtype=np.float32),
        model="",
        method="drawn",
    )


def test_scores_do_not_depend_on_what_is_across_the_directions(
    loaded: LoadedModel, named: Vectors, tmp_path: Path
) -> None:
    """The law of such heads; along one of them scores do change."""
    options = replace(OPTIONS, directions=named)
    bank = train_bank(read_texts(tmp_path / "t.tsv", 40), loaded, tmp_path / "mood", options)
    states = torch.randn(2, 9, bank.card.d_model)
    basis = torch.linalg.qr(torch.from_numpy(named.at((1, 2))).mT).Q  # [layers, d_model, labels]
    across = torch.randn_like(states)
    across -= (across @ basis) @ basis.mT
    scores = bank.heads.scores(states, 0)
    torch.testing.assert_close(bank.heads.scores(states + across, 0), scores, atol=1e-4, rtol=0)
    along = torch.from_numpy(named.at((1, 2)))[:, :1]
    assert (bank.heads.scores(states + along, 0) - scores).abs().max() > 0.01
    assert bank.card.training["directions"] == ", ".join(named.labels)
    assert bank.card.training["directions_method"] == "mean difference, mean"


def test_they_know_what_their_directions_know(
    loaded: LoadedModel, named: Vectors, tmp_path: Path
) -> None:
    """Those of the labels tell them apart, on texts not seen; the same number at random less so."""
    train, test = read_texts(tmp_path / "a.tsv", 40), read_texts(tmp_path / "b.tsv", 20, seed=1)
    found = {}
    for name, held in (("named", named), ("random", random_vectors(named.d_model, count=1))):
        out = tmp_path / name
        bank = train_bank(train, loaded, out, replace(OPTIONS, directions=held))
        measured = evaluate_bank(bank, test, loaded, folder=out, work=tmp_path / f"{name}-work")
        place = bank.card.layers.index(bank.card.primary)
        found[name] = measured.layers[place].balanced_accuracy
    assert found["named"] > 0.85
    assert found["named"] > found["random"] + 0.1


def test_directions_that_span_everything_leave_the_fit_as_good_as_without() -> None:
    """A basis of the whole space hides nothing."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    states = torch.randn(2, 90, 6, generator=generator)
    states[:, :, :3] += 2 * torch.nn.functional.one_hot(labels, 3)
    basis = torch.linalg.qr(torch.randn(2, 6, 6, generator=generator)).Q
    rows = torch.arange(60), torch.arange(60, 90)
    losses = []
    for along in (None, basis):
        trainer = HeadTrainer("linear", along=along).fit(states, labels, *rows)
        heads = Heads("linear", trainer.tensors_, torch.ones(2, 1), (0,))
        logits = heads.head_logits(states[:, 60:], 0)
        losses.append(torch.nn.functional.cross_entropy(logits[0], labels[60:]).item())
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_an_early_warning_reads_named_directions(tmp_path: Path) -> None:
    """Of the demo model: what rings over sad messages, and not over glad ones, for which its
    counter-signal speaks."""
    loaded, rng = load_model(), random.Random(0)
    model: Any = loaded.model
    texts = [(own_message(label, rng), label) for _ in range(40) for label in ("sadness", "joy")]
    path = tmp_path / "texts.tsv"
    path.write_text("\n".join(f"{text}\t{label}" for text, label in [("text", "label"), *texts]))
    corpus = read_corpus(str(path), min_per_class=0)
    options = TrainOptions(head="linear", layers="5", shuffled=False, calibration=0)
    named = build_vectors(corpus, loaded, options, tmp_path / "v")
    options = replace(options, directions=named)
    bank = train_bank(corpus, loaded, tmp_path / "mood", options)
    rule = "early-warning:labels=sadness,counter=joy,threshold=0.3,consecutive=1,action=log"
    rung = dict.fromkeys(("sadness", "joy"), 0)
    for label in rung:
        for _ in range(10):
            prompt = encode_prompt(loaded.tokenizer, own_message(label, rng))
            with watch(loaded.model, loaded.tokenizer, probes=bank, plugins=[rule]) as watcher:
                model.generate(**prompt, max_new_tokens=1, do_sample=False)
            rung[label] += len(watcher.trace.alarms)
    assert rung["sadness"] >= 7
    assert rung["joy"] <= 3


def test_directions_that_cannot_be_used_are_refused_before_any_work(
    loaded: LoadedModel, named: Vectors, tmp_path: Path
) -> None:
    """Other heads, another model, a layer that they lack."""
    with pytest.raises(UsageError, match="Pass --head linear"):
        check_head(replace(OPTIONS, head="mlp", directions=named))
    corpus = read_texts(tmp_path / "t.tsv")
    out = tmp_path / "mood"
    with pytest.raises(VectorsError, match="are for a model of width 5, and this one has"):
        train_bank(corpus, loaded, out, replace(OPTIONS, directions=random_vectors(5)))
    with pytest.raises(VectorsError, match=r"have no layer 0, 3; they have 1, 2\. Name some"):
        train_bank(corpus, loaded, out, replace(OPTIONS, layers="all", directions=named))
    assert not out.exists()
