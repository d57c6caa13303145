"""Label sets and abstention: what is promised of new groups is kept, however rows come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from emowatch.bank.distance import StateDistance
from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import TrainingError
from emowatch.workshop.sets import memberships, set_columns
from emowatch.workshop.uncertainty import (
    MIN_GROUPS,
    HeldOut,
    calibrate,
    conformal_threshold,
    distance_limit,
    fit_distance,
)
from tests.bank.makers import make_evaluation
from tests.workshop.test_evaluation import bank_of

SHARES = np.array([0.7, 0.2, 0.1])
"""How often each class occurs; sets must hold for all as if they were as frequent."""


def rows(groups: int, seed: int, *, offsets: int = 1) -> HeldOut:
    """Draw groups of one class each; states are the class with much noise, alike in a group."""
    rng = np.random.default_rng(seed)
    of_group = rng.choice(3, size=groups, p=SHARES)
    repeats = rng.integers(1, offsets + 1, size=groups)
    group = np.repeat(np.arange(groups), repeats)
    shared = rng.normal(size=(groups, 3))
    noise = 0.8 * shared[group] + 0.4 * rng.normal(size=(len(group), 3))
    labels = of_group[group]
    place = np.concatenate([np.arange(count) for count in repeats])
    return HeldOut(
        states=torch.tensor(np.eye(3)[labels] + noise, dtype=torch.float32),
        labels=torch.tensor(labels),
        offsets=torch.tensor(place),
        groups=group.tolist(),
    )


def reader(bins: tuple[int, ...] = (0,)) -> ProbeBank:
    """Give a bank that reads the class, with doubt."""
    bank = bank_of(torch.stack([torch.zeros(3, 3), 2 * torch.eye(3)]), bins=bins)
    return bank


def made(held: HeldOut, reference: HeldOut | None = None, **more: float) -> ProbeBank:
    """Calibrate it."""
    bins = (0,) if int(held.offsets.max()) == 0 else (0, 1, 8)
    return calibrate(reader(bins), held, reference, source="made up", sha256="ab", split="", **more)


def covered_share(bank: ProbeBank, fresh: HeldOut) -> float:
    """Measure coverage, each group counting once and classes equally."""
    covered, _, _ = set_columns(bank, fresh.states, fresh.labels, fresh.offsets)
    group = np.array(fresh.groups)
    by_group = np.bincount(group, weights=covered) / np.bincount(group)
    of_group = np.zeros(len(by_group), dtype=int)
    of_group[group] = fresh.labels.numpy()
    return float(np.mean([by_group[of_group == label].mean() for label in range(3)]))


# Sets


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("offsets", [1, 6])
def test_sets_hold_the_true_label_of_new_groups_as_often_as_promised(
    level: float, offsets: int
) -> None:
    """The one promise that conformal prediction makes, with rare classes and rows alike."""
    bank = reader()
    found = []
    for seed in range(20):
        held = rows(400, seed, offsets=offsets)
        held = replace(held, offsets=torch.zeros(len(held.labels), dtype=torch.long))
        one = calibrate(bank, held, None, source="", sha256="", split="", level=level)
        fresh = rows(2000, 1000 + seed, offsets=offsets)
        fresh = replace(fresh, offsets=torch.zeros(len(fresh.labels), dtype=torch.long))
        found.append(covered_share(one, fresh))
    assert level - 0.01 <= np.mean(found) <= level + 0.02


def test_a_threshold_does_not_hang_on_how_many_rows_a_group_has() -> None:
    """A long reply is one example; its states are no thousand witnesses."""
    held = rows(300, 0)
    scores = reader().heads_at((1,)).scores(held.states[None], held.offsets)[0].double().numpy()
    true = scores[np.arange(300), held.labels.numpy()]
    labels, groups = held.labels.numpy(), np.array(held.groups)
    once = conformal_threshold(true, labels, groups, 0.9)
    again = np.repeat(np.arange(300), np.arange(300) % 7 + 1)
    many = conformal_threshold(true[again], labels[again], groups[again], 0.9)
    assert many == once


def test_classes_count_equally() -> None:
    """As for temperatures; else the true label of rare emotions would be missed."""
    even = np.array([0.9] * 100 + [0.2] * 100)
    labels = np.array([0] * 100 + [1] * 100)
    few = np.concatenate([np.arange(100), np.arange(100, 200, 5)])
    groups = np.arange(200)
    assert conformal_threshold(even, labels, groups, 0.9) == 0.2
    assert conformal_threshold(even[few], labels[few], groups[few], 0.9) == 0.2


def test_too_few_groups_leave_nothing_out() -> None:
    """Five groups cannot promise 90 %: only the set of all labels holds that often."""
    true, labels = np.full(5, 0.7), np.zeros(5, dtype=np.int64)
    assert conformal_threshold(true, labels, np.arange(5), 0.9) == 0
    assert conformal_threshold(true, labels, np.arange(5), 0.5) == 0.7


def test_each_bin_of_offsets_has_its_own_threshold_where_it_has_the_groups() -> None:
    """Late states tell less; a bin of few groups takes the threshold of all."""
    held = rows(400, 0, offsets=9)
    uncertainty = made(held).card.uncertainty
    assert uncertainty is not None
    counts = [
        len({g for g, o in zip(held.groups, held.offsets.tolist(), strict=True) if low <= o < high})
        for low, high in ((0, 1), (1, 8), (8, 99))
    ]
    assert list(uncertainty.groups) == counts
    assert (
        uncertainty.pooled == tuple(count < MIN_GROUPS for count in counts) == (False, False, True)
    )
    assert len(set(uncertainty.thresholds)) == 3
    assert uncertainty.last == 8
    assert uncertainty.keeps is None


def test_a_bank_is_not_calibrated_on_a_handful_of_texts() -> None:
    """A promise that rests on nothing is worse than none."""
    with pytest.raises(
        TrainingError, match=f"on {MIN_GROUPS - 1} groups .* {MIN_GROUPS} are needed"
    ):
        made(rows(MIN_GROUPS - 1, 0))


def test_a_label_of_a_handful_of_texts_is_refused() -> None:
    """Classes count equally: one text more of it would move every set."""
    held = rows(300, 0)
    chosen = torch.ones(len(held.labels), dtype=torch.bool)
    chosen[(held.labels == 2).nonzero()[4:, 0]] = False
    few = HeldOut(
        states=held.states[chosen],
        labels=held.labels[chosen],
        offsets=held.offsets[chosen],
        groups=[g for g, c in zip(held.groups, chosen.tolist(), strict=True) if c],
    )
    name = reader().card.labels[2]
    with pytest.raises(TrainingError, match=rf"10 groups .* there are only {name} 4\."):
        made(few)


def test_scores_stay_what_they_were() -> None:
    """Sets are read from scores; they do not change them."""
    held = rows(200, 0)
    before, after = reader(), made(held, rows(200, 1))
    assert torch.equal(
        before.heads.scores(held.states[None].expand(2, -1, -1), 0),
        after.heads.scores(held.states[None].expand(2, -1, -1), 0),
    )
    assert set(after.tensors) - set(before.tensors) == {
        "state_mean",
        "state_scale",
        "state_factors",
    }


def test_many_rows_are_told_as_one_is() -> None:
    """The evaluation and the watch must speak of the same sets."""
    held = rows(400, 0, offsets=9)
    bank = made(held)
    sets = bank.card.label_sets
    assert sets is not None
    scores = bank.heads_at((1,)).scores(held.states[None], held.offsets)[0].double().numpy()
    inside = memberships(sets, scores, held.offsets)
    for row in range(0, len(scores), 7):
        named = dict(zip(bank.card.labels, scores[row].tolist(), strict=True))
        one = sets.of(named, int(held.offsets[row]))
        assert {bank.card.labels[n] for n in np.flatnonzero(inside[row])} == set(one)


# Abstention


def test_a_bank_abstains_from_what_is_unlike_and_seldom_from_what_is_like() -> None:
    """As seldom as it was told to."""
    bank = made(rows(400, 0), rows(300, 1), keeps=0.95)
    assert bank.distance is not None
    fresh = rows(4000, 2)
    share = float((bank.distance.of(fresh.states, fresh.offsets) > 1).float().mean())
    assert share == pytest.approx(0.05, abs=0.025)
    far = fresh.states + torch.tensor([0.0, 9.0, -9.0])
    assert float((bank.distance.of(far, fresh.offsets) > 1).float().mean()) > 0.99


def test_the_limit_does_not_hang_on_how_many_rows_a_group_has() -> None:
    """One odd reply of a hundred states is one odd reply."""
    rng = np.random.default_rng(0)
    distances, groups = 9 * rng.random(500), np.arange(500)
    again = np.repeat(groups, groups % 5 + 1)
    assert distance_limit(distances[again], again, 0.9) == distance_limit(distances, groups, 0.9)
    assert distance_limit(distances, groups, 0.9) == pytest.approx(8.1, abs=0.4)
    assert distance_limit(distances[:20], groups[:20], 0.99) == distances[:20].max()


def test_bins_have_their_own_centre() -> None:
    """The last prompt token is the same word each time; a reply's are not."""
    states = torch.randn(600, 5, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([0, 3, 20]).repeat(200)
    states[offsets == 3] += 50
    found = fit_distance(states, offsets, range(len(states)), (0, 1, 8))
    apart = found["state_mean"][1] - found["state_mean"][0]
    assert torch.allclose(apart, torch.full((5,), 50.0), atol=1)
    distance = StateDistance(found, (0, 1, 8))
    assert float(distance.of(states, offsets).max()) < 10
    assert float(distance.of(states[:1], 3)) > 20


@pytest.mark.parametrize("rows", [10, 150])
def test_a_bin_of_few_texts_takes_the_centre_of_all(rows: int) -> None:
    """A mean of a dozen texts would make all others look strange, however long they are."""
    states = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([0] * (300 - rows) + [9] * rows)
    groups = [*range(300 - rows), *(1000 + n % 10 for n in range(rows))]
    found = fit_distance(states, offsets, groups, (0, 1))
    assert torch.allclose(found["state_mean"][1], states.mean(0), atol=1e-5)


def test_dimensions_that_never_vary_say_nothing() -> None:
    """The embedding of a template's last token is a constant."""
    states = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    states[:, 2] = 7.0
    found = fit_distance(states, torch.zeros(200, dtype=torch.long), range(200), (0,))
    assert float(found["state_scale"][0, 2]) == 0
    other = states.clone()
    other[:, 2] = -100
    distance = StateDistance(found, (0,))
    assert torch.equal(distance.of(other, 0), distance.of(states, 0))


def test_fewer_rows_than_dimensions_are_enough() -> None:
    """A wide model and a small corpus: the spread along unseen directions is not zero."""
    few: Tensor = torch.randn(150, 400, generator=torch.Generator().manual_seed(0))
    found = fit_distance(few[:100], torch.zeros(100, dtype=torch.long), range(100), (0,))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found.values())
    near, far = (StateDistance(found, (0,)).of(part, 0).mean() for part in (few[:100], few[100:]))
    assert float(far / near) < 1.6


def test_a_bank_that_is_calibrated_anew_keeps_nothing_of_the_sets_before() -> None:
    """Figures of other thresholds on its card would be a lie."""
    held = rows(300, 0, offsets=9)
    first = made(held, rows(300, 1, offsets=9))
    card = replace(first.card, evaluation=make_evaluation())
    assert card.evaluation is not None and card.evaluation.sets is not None
    again = calibrate(
        ProbeBank(card, first.tensors), held, None, source="", sha256="", split="", level=0.8
    )
    assert not again.card.can_abstain
    assert not any(name.startswith("state_") for name in again.tensors)
    kept = again.card.evaluation
    assert kept is not None
    assert kept.sets is None
    assert [part.coverage for part in kept.by_offset] == [None]
    assert [part.ece for part in kept.by_offset] == [0.087]
    assert kept.layers == card.evaluation.layers


def test_states_that_differ_by_rounding_alone_are_all_alike() -> None:
    """After one and the same message offset 0 is one state, but for the batch it was read in."""
    rng = torch.Generator().manual_seed(0)
    state = 3 * torch.randn(16, generator=rng)
    read, again = (state * (1 + 1e-6 * torch.randn(200, 16, generator=rng)) for _ in range(2))
    held = HeldOut(
        states=read[:, :3],
        labels=torch.arange(200) % 3,
        offsets=torch.zeros(200, dtype=torch.long),
        groups=range(200),
    )
    bank = made(held, held)
    assert bank.distance is not None
    assert float(bank.distance.of(again[:, :3] * (1 + 1e-5), 0).max()) < 1
