"""Evaluation: no figure stands alone, and each stands beside the right one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emowatch.bank.card import BankCard, Evaluation, Fingerprints, TrainingData
from emowatch.bank.heads import HeadKind
from emowatch.bank.probe_bank import ProbeBank
from emowatch.bank.readme import render_card
from emowatch.bank.uncertainty import Uncertainty
from emowatch.workshop.evaluation import (
    LayerReport,
    TestRows,
    evaluate,
    for_card,
)
from emowatch.workshop.metrics import report
from emowatch.workshop.tables import render_evaluation
from emowatch.workshop.text_baseline import fit_text_baseline

LABELS = ("joy", "neutral", "sadness")
TEXTS = ["happy sunny day", "a table and a chair", "tears and rain"]


def bank_of(weight: Tensor, primary: int = 1, bins: tuple[int, ...] = (0,)) -> ProbeBank:
    """Make a bank of linear heads ``[layers, d_model, labels]`` without bias."""
    layers, width, labels = weight.shape
    head: HeadKind = "linear"
    card = BankCard(
        name="mood",
        model="tiny",
        revision="",
        d_model=width,
        n_layers=layers,
        fingerprints=Fingerprints(config=""),
        layers=tuple(range(layers)),
        primary=primary,
        labels=LABELS,
        target="user",
        head=head,
        readout="reply",
        template=True,
        offsets=(0, 40),
        bins=bins,
        data=TrainingData(
            source="", sha256="", licence="", examples=0, quarantined={}, split="", per_class={}
        ),
        training={},
    )
    tensors = {
        "weight": weight,
        "bias": torch.zeros(layers, labels),
        "temperature": torch.ones(layers, len(bins)),
    }
    return ProbeBank(card, tensors)


def readers() -> ProbeBank:
    """Give a bank whose layer 0 knows nothing and whose layer 1 reads the label exactly."""
    return bank_of(torch.stack([torch.zeros(3, 3), 4 * torch.eye(3)]))


def rows(per_class: int = 20, offsets: int = 1) -> TestRows:
    """Give states that are the label, with some noise, and the same for each offset."""
    labels = torch.arange(3).repeat(per_class).repeat_interleave(offsets)
    noise = torch.randn(2, len(labels), 3, generator=torch.Generator().manual_seed(0))
    return TestRows(
        states=torch.nn.functional.one_hot(labels).float() + 0.2 * noise,
        labels=labels,
        offsets=torch.arange(offsets).repeat(3 * per_class),
        examples=torch.arange(3 * per_class).repeat_interleave(offsets).tolist(),
        groups=torch.arange(3 * per_class).repeat_interleave(offsets).tolist(),
    )


def measured(
    bank: ProbeBank,
    test: TestRows,
    *,
    training_texts: tuple[list[str], list[int]] | None = None,
    **more: object,
) -> Evaluation:
    """Evaluate with a name and a hash that do not matter."""
    if training_texts is not None:
        more["baseline"] = fit_text_baseline(*training_texts, n_labels=len(LABELS))
    return evaluate(bank, test, data="made up", sha256="ab", **more)  # type: ignore[arg-type]  # passed on


def test_every_layer_is_measured_and_the_floors_stand_beside() -> None:
    """A reader must see at once what knowing nothing would score."""
    words = (TEXTS * 20, [0, 1, 2] * 20)
    null = bank_of(torch.zeros(2, 3, 3))
    texts = (*words, list(range(60)))
    found = measured(readers(), rows(), texts=texts, training_texts=words, shuffled=null)
    assert [layer.layer for layer in found.layers] == [0, 1]
    assert found.layers[0].balanced_accuracy == pytest.approx(found.chance, abs=1e-3)
    assert found.layers[1].balanced_accuracy > 0.95
    assert [layer.shuffled_balanced_accuracy for layer in found.layers] == [0.3333, 0.3333]
    assert found.tfidf_balanced_accuracy == 1
    assert found.tfidf_balanced_accuracy_interval == (1, 1)
    for layer in found.layers:
        low, high = layer.balanced_accuracy_interval
        assert low <= layer.balanced_accuracy <= high
        assert layer.shuffled_balanced_accuracy_interval == (0.3333, 0.3333)


def test_every_figure_has_its_interval() -> None:
    """A floor without one cannot be told from a head that is a little better than it."""
    words = (TEXTS * 20, [0, 1, 2] * 20)
    noise = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1))
    bank = bank_of(torch.stack([torch.zeros(3, 3), 2 * torch.eye(3)]), bins=(0, 1, 8))
    texts = (*words, list(range(60)))
    found = measured(
        bank, rows(offsets=12), texts=texts, training_texts=words, shuffled=bank_of(noise)
    )
    pairs: list[tuple[float, tuple[float, float]]] = []

    def collect(table: Any) -> None:
        for name, value in table.items() if isinstance(table, dict) else ():
            if isinstance(value, float) and name not in ("chance", "ece_null"):
                pairs.append((value, table[f"{name}_interval"]))
            for inner in value if isinstance(value, tuple) else ():
                collect(inner)

    whole = asdict(found)
    collect(whole)
    for name in ("precision", "recall"):
        assert set(whole[name]) == set(LABELS)
        pairs += [(value, whole[f"{name}_interval"][k]) for k, value in whole[name].items()]
    assert len(pairs) == 1 + 2 * 4 + 3 * 2 + 2 * 3
    assert all(low <= value <= high for value, (low, high) in pairs)
    low, high = found.layers[0].shuffled_balanced_accuracy_interval or (0, 0)
    assert low < high


def test_every_layer_has_its_shares_and_counts_with_intervals() -> None:
    """Layers may differ in which label they miss; a card has room for those of one only."""
    found = measured(readers(), rows())
    blind, seeing = found.layers
    assert isinstance(blind, LayerReport)
    assert isinstance(seeing, LayerReport)
    assert (found.recall, found.confusion) == (seeing.recall, seeing.confusion)
    assert blind.recall != seeing.recall
    for layer in (blind, seeing):
        assert set(layer.recall_interval) == set(layer.recall) == set(LABELS)
        assert np.sum(layer.confusion) == found.rows
        low, high = np.moveaxis(np.array(layer.confusion_interval), -1, 0)
        assert ((low <= layer.confusion) & (np.array(layer.confusion) <= high)).all()
        assert (low < high).any()
    kept = for_card(found)
    assert not any(isinstance(layer, LayerReport) for layer in kept.layers)
    assert kept.layers[1].balanced_accuracy == seeing.balanced_accuracy
    assert kept.recall == found.recall


def test_a_card_from_before_an_interval_was_measured_still_loads() -> None:
    """Banks outlive the versions that wrote them."""
    found = measured(readers(), rows(offsets=12), shuffled=readers())
    kept = for_card(found)
    card = replace(readers().card, evaluation=kept)
    table = json.loads(card.to_json())
    for layer in table["evaluation"]["layers"]:
        del layer["shuffled_balanced_accuracy_interval"]
    for part in table["evaluation"]["by_offset"]:
        del part["ece_interval"]
    for name in ("precision_interval", "recall_interval"):
        del table["evaluation"][name]
    old = BankCard.from_json(json.dumps(table))
    assert old.evaluation is not None
    assert old.evaluation.layers[1].shuffled_balanced_accuracy_interval is None
    assert old.evaluation.recall == found.recall
    assert BankCard.from_json(card.to_json()).evaluation == kept
    for shown in (render_card(old), render_evaluation(old, old.evaluation)):
        assert f"{found.recall['joy']:.3f}" in shown
        assert "None" not in shown


def test_a_label_of_which_nothing_can_be_said_is_left_out() -> None:
    """A recall of 0 would say that its texts were not recognised; there are none."""
    test = rows()
    two = test.labels < 2
    test = TestRows(
        states=test.states[:, two],
        labels=test.labels[two],
        offsets=test.offsets[two],
        examples=list(range(40)),
        groups=list(range(40)),
    )
    found = measured(readers(), test)
    assert set(found.recall) == set(found.recall_interval) == set(LABELS[:2])
    bank = readers()
    blind = measured(ProbeBank(replace(bank.card, primary=0), bank.tensors), test)
    assert len(blind.precision) == 1  # all rows are taken for one label
    shown = render_evaluation(bank.card, found)
    (line,) = [line for line in shown.splitlines() if line.startswith("  sadness  not measured")]
    assert line.endswith("not measured")


def test_details_are_those_of_the_primary_layer() -> None:
    """It was chosen in training; the best layer on the test set would be a boast."""
    bank, test = readers(), rows()
    found = measured(bank, test)
    scores = bank.heads.scores(test.states, test.offsets)[1].numpy()
    wanted = report(scores, test.labels.numpy(), test.groups)
    assert found.confusion == tuple(map(tuple, wanted.confusion.tolist()))
    assert list(found.recall.values()) == pytest.approx(wanted.recall(), abs=1e-4)
    other = ProbeBank(replace(bank.card, primary=0), bank.tensors)
    assert measured(other, test).confusion != found.confusion
    assert measured(other, test).layers == found.layers


def test_examples_are_counted_apart_from_their_states() -> None:
    """n is what the intervals rest on."""
    found = measured(readers(), rows(per_class=10, offsets=4))
    assert (found.n, found.rows) == (30, 120)
    assert found.per_class_rows == dict.fromkeys(LABELS, 40)


def test_accuracy_is_told_by_offset_where_there_are_several() -> None:
    """Persistence is a claim about late offsets; bins that hold nothing are left out."""
    bank = bank_of(torch.stack([torch.zeros(3, 3), 4 * torch.eye(3)]), bins=(0, 1, 8, 32))
    found = measured(bank, rows(per_class=10, offsets=12))
    assert [(o.first, o.last, o.n) for o in found.by_offset] == [
        (0, 0, 30),
        (1, 7, 30),
        (8, 11, 30),
    ]
    assert all(o.balanced_accuracy > 0.9 for o in found.by_offset)
    assert found.at_chance == ()
    assert measured(bank, rows()).by_offset == ()


def test_offsets_at_which_a_bank_knows_nothing_are_told() -> None:
    """Where the interval reaches chance, a score is no evidence, and the screen shows none."""
    bank = bank_of(torch.stack([torch.zeros(3, 3), 4 * torch.eye(3)]), bins=(0, 1, 8, 32))
    states = rows(per_class=10, offsets=12)
    first = states.offsets == 0
    blind = replace(states, states=states.states.masked_fill(first[None, :, None], 0.0))
    found = measured(bank, blind)
    assert found.at_chance == ((0, 0),)
    info = ProbeBank(replace(bank.card, evaluation=for_card(found)), bank.tensors).info
    assert [info.knows(offset) for offset in (0, 1, 11, 500)] == [False, True, True, True]
    assert bank.info.knows(0), "a bank that was not measured is not known to be blind"


def test_without_training_texts_there_is_no_text_baseline() -> None:
    """It is said to be missing rather than made up from the test set."""
    found = measured(readers(), rows(), texts=(TEXTS, [0, 1, 2]))
    assert found.tfidf_balanced_accuracy is None
    assert found.tfidf_balanced_accuracy_interval is None
    assert found.layers[0].shuffled_balanced_accuracy is None


# Label sets and abstention


def with_sets(bank: ProbeBank, thresholds: tuple[float, ...], limit: float = 3.0) -> ProbeBank:
    """Give a bank label sets, and a distance in units of `limit` from the middle of the classes."""
    bins = bank.card.bins
    uncertainty = Uncertainty(
        source="made up",
        sha256="ab",
        split="",
        level=0.9,
        thresholds=thresholds,
        groups=(200,) * len(bins),
        pooled=(False,) * len(bins),
        last=40,
        keeps=0.99,
        factors=1,
    )
    tensors = bank.tensors | {
        "state_mean": torch.full((len(bins), 3), 1 / 3),
        "state_scale": torch.full((len(bins), 3), 1 / limit),
        "state_factors": torch.zeros(3, 1),
    }
    return ProbeBank(replace(bank.card, uncertainty=uncertainty), tensors)


def test_a_bank_without_sets_has_no_figures_of_them() -> None:
    """But it is told what ECE it could have at best."""
    found = measured(readers(), rows())
    assert found.sets is None
    assert found.ece_null is not None and 0 < found.ece_null < 0.2


def test_sets_are_measured_with_their_size_and_what_chance_would_need() -> None:
    """Full sets cover all; sets of one label cover what is right."""
    test = rows()
    full = measured(with_sets(readers(), (0.0,)), test).sets
    assert full is not None
    assert (full.coverage, full.size, full.chance_size) == (1, 3, 2.7)
    small = measured(with_sets(readers(), (1.0,)), test)
    assert small.sets is not None
    assert small.sets.size == 1
    assert small.sets.coverage == pytest.approx(small.layers[1].balanced_accuracy, abs=1e-4)
    assert small.sets.coverage_by_label == pytest.approx(small.recall, abs=1e-4)
    low, high = small.sets.coverage_interval
    assert low <= small.sets.coverage <= high


def test_sets_are_measured_in_each_range_of_offsets_as_far_as_they_were_calibrated() -> None:
    """A range of its own threshold has a promise of its own."""
    bank = bank_of(torch.stack([torch.zeros(3, 3), 4 * torch.eye(3)]), bins=(0, 1, 8))
    found = measured(with_sets(bank, (0.0, 1.0, 1.0)), rows(offsets=12))
    assert [part.size for part in found.by_offset] == [3, 1, 1]
    assert found.by_offset[0].coverage == 1
    assert all(part.ece_null for part in found.by_offset)
    surer = with_sets(bank, (0.0, 1.0, 1.0))
    assert surer.card.uncertainty is not None
    short = ProbeBank(
        replace(surer.card, uncertainty=replace(surer.card.uncertainty, last=3)), surer.tensors
    )
    parts = measured(short, rows(offsets=12)).by_offset
    assert [part.size for part in parts] == [3, 1, None]


def test_abstention_is_measured_on_the_test_set_and_on_what_is_unlike() -> None:
    """A detector is worth what it lets pass and what it does not."""
    bank, test = with_sets(readers(), (0.0,)), rows()
    far = replace(test, states=test.states + torch.tensor([0.0, 9.0, -9.0]))
    found = measured(bank, test, unlike={"far": far, "same": test}).sets
    assert found is not None
    assert found.abstention is not None and found.abstention < 0.05
    away, same = found.detection
    assert (away.kind, away.n, away.abstention, away.auroc) == ("far", 60, 1, 1)
    assert same.abstention == found.abstention
    assert same.auroc == 0.5
    assert same.auroc_interval[0] < 0.5 < same.auroc_interval[1]
    kept = replace(bank.card, evaluation=for_card(measured(bank, test, unlike={"far": far})))
    assert BankCard.from_json(kept.to_json()) == kept
    assert kept.evaluation is not None
    for shown in (render_card(kept), render_evaluation(kept, kept.evaluation)):
        assert "far" in shown and "1.000 [1.000, 1.000]" in shown
        assert "None" not in shown
