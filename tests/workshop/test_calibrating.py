"""From a bank on disk to one with label sets and abstention, on a tiny model."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from emowatch.bank import load_bank
from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import TrainingError, UsageError
from emowatch.model.loading import LoadedModel
from emowatch.workshop.calibrating import calibrate_bank, split_of_training
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.pipeline import evaluate_bank, save_evaluation, train_bank
from emowatch.workshop.unlike import unlike_texts
from tests.workshop.synthetic import read_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MEAN = TrainOptions(head="linear", readout="mean", template=False, shuffled=False)
REPLIES = TrainOptions(
    head="offset-mlp",
    readout="reply",
    target="reply",
    hidden=8,
    states_per_reply=3,
    shuffled=False,
)


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Give the tiny model as the loader would."""
    return LoadedModel(tiny_model, tiny_tokenizer, "tiny")


def halves(path: Path, per_class: int, seed: int) -> tuple[Corpus, Corpus]:
    """Read texts of one kind and part them at random: those of another seed are another kind."""
    corpus = read_texts(path, per_class, seed)
    drawn = random.Random(0).sample(corpus.examples, len(corpus))
    middle = len(drawn) // 2
    first, second = (
        replace(corpus, examples=tuple(side)) for side in (drawn[:middle], drawn[middle:])
    )
    return first, replace(second, sha256="other")


def trained(loaded: LoadedModel, folder: Path, options: TrainOptions = MEAN) -> ProbeBank:
    """Train a bank of few texts, which has no sets of its own."""
    corpus = read_texts(folder / "train.tsv", 20)
    return train_bank(corpus, loaded, folder / "mood", options)


@pytest.mark.parametrize("options", [MEAN, REPLIES], ids=["prompts", "replies"])
def test_a_bank_gets_sets_that_hold_and_abstains_from_what_it_does_not_know(
    loaded: LoadedModel, tmp_path: Path, options: TrainOptions
) -> None:
    """The whole way: calibrate, save, open, measure on texts that none of it has seen."""
    bank = trained(loaded, tmp_path, options)
    assert bank.card.uncertainty is None
    held, test = halves(tmp_path / "dev.tsv", 120, seed=1)
    folder = tmp_path / "mood"
    made = calibrate_bank(bank, held, loaded, folder=folder, work=tmp_path / "work")
    made.save(folder)
    again = load_bank(folder)
    assert again.card == made.card
    uncertainty = again.card.uncertainty
    assert uncertainty is not None
    assert uncertainty.sha256 == held.sha256 != again.card.data.sha256
    assert max(uncertainty.groups) >= 100
    for name, tensor in bank.tensors.items():
        assert torch.equal(again.tensors[name], tensor), name
    found = evaluate_bank(again, test, loaded, folder=folder, work=tmp_path / "test")
    sets = found.sets
    assert sets is not None
    assert sets.coverage_interval[1] > 0.87
    assert 1 <= sets.size < 3
    assert sets.abstention is not None and sets.abstention < 0.1
    assert [one.kind for one in sets.detection] == list(unlike_texts())
    if options is MEAN:
        assert all(one.auroc > 0.9 for one in sets.detection)
    assert save_evaluation(again, found, folder).card.evaluation is not None
    assert "sets were calibrated" not in found.note
    same = evaluate_bank(again, held, loaded, folder=folder, work=tmp_path / "same")
    assert "These are the texts its label sets were calibrated on." in same.note


@pytest.mark.parametrize("keeps", [None, 0.95])
def test_temperatures_are_fitted_anew_where_asked(
    loaded: LoadedModel, tmp_path: Path, keeps: float | None
) -> None:
    """At every layer, to what thresholds do not see; heads stay, and old figures go."""
    bank = trained(loaded, tmp_path)
    unsure = ProbeBank(bank.card, bank.tensors | {"temperature": bank.tensors["temperature"] * 6})
    held, test = halves(tmp_path / "dev.tsv", 120, seed=1)
    measured = evaluate_bank(unsure, test, loaded, work=tmp_path / "before")
    unsure = ProbeBank(replace(unsure.card, evaluation=measured), unsure.tensors)
    made = calibrate_bank(
        unsure, held, loaded, work=tmp_path / "work", keeps=keeps, temperatures=True
    )
    assert made.card.evaluation is None
    uncertainty = made.card.uncertainty
    assert uncertainty is not None and "30% for temperatures" in uncertainty.split
    assert made.card.can_abstain == (keeps is not None)
    for name in set(bank.tensors) - {"temperature"}:
        assert torch.equal(made.tensors[name], bank.tensors[name]), name
    assert (made.tensors["temperature"] < unsure.tensors["temperature"] / 2).all()
    after = evaluate_bank(made, test, loaded, work=tmp_path / "after")
    place = bank.card.layers.index(bank.card.primary)
    assert after.layers[place].ece < measured.layers[place].ece / 2
    assert after.layers[place].balanced_accuracy == measured.layers[place].balanced_accuracy


def test_training_keeps_texts_for_sets_where_it_has_enough(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """No head may have seen them, and they are not those that chose the layer."""
    corpus = read_texts(tmp_path / "train.tsv", 90)
    options = replace(MEAN, calibration=0.4)
    bank = train_bank(corpus, loaded, tmp_path / "mood", options)
    uncertainty = bank.card.uncertainty
    assert uncertainty is not None
    assert "50% training, 10% validation, 40% calibration" in bank.card.data.split
    assert 100 <= uncertainty.groups[0] <= 120
    assert bank.card.can_abstain
    without = train_bank(corpus, loaded, tmp_path / "other", replace(MEAN, calibration=0.0))
    assert without.card.uncertainty is None
    assert "90% training, 10% validation (seed" in without.card.data.split


def test_texts_that_could_make_no_sets_stay_in_training(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """A label with few groups would be short of them on the side for sets."""
    corpus = read_texts(tmp_path / "train.tsv", 140)
    rare = [example for example in corpus.examples if example.label == 0][20:]
    short = replace(corpus, examples=tuple(e for e in corpus.examples if e not in rare))
    options = replace(MEAN, calibration=0.4)
    splits, parted = split_of_training(short, options)
    assert list(splits) == ["train", "validation"] and "90% training, 10% validation" in parted
    plain, _ = split_of_training(short, replace(options, calibration=0.0))
    assert all(np.array_equal(splits[side], plain[side]) for side in plain)
    assert "calibration" in split_of_training(corpus, options)[0]
    bank = train_bank(short, loaded, tmp_path / "mood", options)
    assert bank.card.uncertainty is None and parted == bank.card.data.split


def test_many_texts_of_few_groups_make_no_sets(loaded: LoadedModel, tmp_path: Path) -> None:
    """Rows of one group say the same again; the bank comes without sets, and training ends well."""
    corpus = read_texts(tmp_path / "train.tsv", 140)
    first = [n for n, example in enumerate(corpus.examples) if example.label == 0]
    group_of = {n: f"group {place % 12}" for place, n in enumerate(first)}
    grouped = tuple(
        replace(e, group=group_of.get(n, e.group)) for n, e in enumerate(corpus.examples)
    )
    corpus = replace(corpus, examples=grouped)
    bank = train_bank(corpus, loaded, tmp_path / "mood", replace(MEAN, calibration=0.4))
    assert bank.card.uncertainty is None


def test_a_position_has_sets_of_its_own_states(loaded: LoadedModel, tmp_path: Path) -> None:
    """Several positions are tried; sets are of the one that was kept."""
    options = replace(MEAN, readout="positions", positions=(-3, -2, -1), calibration=0.5)
    corpus, test = halves(tmp_path / "train.tsv", 180, seed=0)
    bank = train_bank(corpus, loaded, tmp_path / "mood", options)
    found = evaluate_bank(bank, test, loaded, work=tmp_path / "test")
    assert found.sets is not None
    assert found.sets.coverage_interval[1] > 0.87
    assert found.sets.abstention is not None and found.sets.abstention < 0.1


def test_the_texts_of_the_training_are_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    """Heads are surer of what they have learned than of anything new."""
    bank = trained(loaded, tmp_path)
    same = read_texts(tmp_path / "train.tsv", 20)
    with pytest.raises(UsageError, match=r"the file the bank was trained on.*Name texts"):
        calibrate_bank(bank, same, loaded, work=tmp_path / "work")


def test_texts_of_the_training_within_others_are_left_out(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """They are known by the record that training leaves, and counted on the card."""
    bank = trained(loaded, tmp_path)
    seen, unseen = read_texts(tmp_path / "train.tsv", 20), read_texts(tmp_path / "dev.tsv", 60, 1)
    mixed = replace(unseen, examples=(*unseen.examples, *seen.examples))
    folder = tmp_path / "mood"
    made = calibrate_bank(bank, mixed, loaded, folder=folder, work=tmp_path / "work")
    alone = calibrate_bank(bank, unseen, loaded, folder=folder, work=tmp_path / "alone")
    assert made.card.uncertainty is not None and alone.card.uncertainty is not None
    assert "60 left out, as in the training data" in made.card.uncertainty.split
    assert made.card.uncertainty.thresholds == alone.card.uncertainty.thresholds


def test_too_few_texts_are_refused_before_any_state_is_read(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """And the number that is needed is said."""
    bank = trained(loaded, tmp_path)
    few = read_texts(tmp_path / "dev.tsv", 40, seed=1)
    with pytest.raises(TrainingError, match="on 120 groups of texts: 143 are needed"):
        calibrate_bank(bank, few, loaded, work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_there_are_thirty_different_texts_of_each_kind() -> None:
    """Shares of fewer would say little."""
    found = unlike_texts()
    assert list(found) == ["code", "tool calls", "other languages"]
    assert all(len(set(texts)) == len(texts) == 30 for texts in found.values())
    assert all(text.strip() for texts in found.values() for text in texts)
