"""Sampling: no group is cut by a split, and classes are balanced and weighed evenly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emowatch.errors import CorpusError
from emowatch.workshop.corpora import balance, class_weights, split_by_group, undersample

# No deadline, because other work may share the machine; no database, because it is a folder in
# the working directory.
LAW = settings(deadline=None, database=None)

# Splitting

GROUPS = st.lists(st.text(max_size=3), min_size=1, max_size=80)
HALVES = {"train": 0.5, "test": 0.5}


@LAW
@given(
    groups=GROUPS, parts=st.lists(st.integers(1, 20), min_size=1, max_size=4), seed=st.integers(0)
)
def test_a_split_uses_every_row_once_and_cuts_no_group(
    groups: list[str], parts: list[int], seed: int
) -> None:
    """The law that every metric of a probe rests on."""
    fractions = {str(n): part / sum(parts) for n, part in enumerate(parts)}
    if len(set(groups)) < len(parts):
        with pytest.raises(CorpusError, match="a group is never cut"):
            split_by_group(groups, fractions=fractions, seed=seed)
        return
    split = split_by_group(groups, fractions=fractions, seed=seed)
    assert list(split) == list(fractions)
    assert sorted(np.concatenate(list(split.values()))) == list(range(len(groups)))
    sides = Counter(side for rows in split.values() for side in {groups[i] for i in rows})
    assert max(sides.values()) == 1
    assert min(map(len, split.values())) > 0


def test_a_split_follows_its_fractions_and_its_seed() -> None:
    """Close to the fractions, the same for one seed, another for the next."""
    groups = [f"group {number}" for number in range(5000)]
    fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
    split = split_by_group(groups, fractions=fractions, seed=3)
    for name, fraction in fractions.items():
        assert len(split[name]) / 5000 == pytest.approx(fraction, abs=0.02)
    again = split_by_group(groups, fractions=fractions, seed=3)
    other = split_by_group(groups, fractions=fractions, seed=4)
    assert np.array_equal(split["test"], again["test"])
    assert not np.array_equal(split["test"], other["test"])


def test_a_group_keeps_its_side_when_rows_are_added() -> None:
    """A corpus that grows must not move old test rows into training."""
    groups = [f"group {number}" for number in range(400)]
    before = split_by_group(groups[:200], fractions=HALVES, seed=0)
    after = split_by_group(groups[::-1], fractions=HALVES, seed=0)
    assert {groups[i] for i in before["test"]} < {groups[::-1][i] for i in after["test"]}


@pytest.mark.parametrize(
    ("fractions", "words"),
    [
        ({"train": 0.9}, "must sum to 1. Got {'train': 0.9}, which sum to 0.9"),
        ({"train": 1.0, "test": 0.0}, "must each be above 0"),
        ({"train": 1.5, "test": -0.5}, "must each be above 0"),
        ({}, "must each be above 0"),
    ],
)
def test_fractions_that_are_no_fractions_are_refused(
    fractions: dict[str, float], words: str
) -> None:
    """Rows must neither vanish nor be used twice."""
    with pytest.raises(CorpusError) as caught:
        split_by_group(["a", "b"], fractions=fractions, seed=0)
    assert words in str(caught.value)


# Balancing

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@LAW
@given(labels=LABELS, neutral=st.none() | st.integers(0, 5), seed=st.integers(0, 99))
def test_balanced_classes_are_all_as_large_as_the_largest_emotion(
    labels: npt.NDArray[np.int64], neutral: int | None, seed: int
) -> None:
    """The recipe of arXiv 2510.04064; each row is used as evenly as possible."""
    counts = Counter(labels.tolist())
    emotions = [count for label, count in counts.items() if label != neutral]
    if not emotions:
        with pytest.raises(CorpusError, match="none is of a class other than neutral"):
            balance(labels, neutral=neutral, seed=seed)
        return
    indices = balance(labels, neutral=neutral, seed=seed)
    assert Counter(labels[indices].tolist()) == dict.fromkeys(counts, max(emotions))
    for label, count in counts.items():
        uses = np.bincount(indices, minlength=len(labels))[labels == label]
        assert uses.min() == max(emotions) // count
        assert uses.max() - uses.min() <= 1
    assert np.array_equal(indices, balance(labels, neutral=neutral, seed=seed))


@LAW
@given(labels=LABELS, seed=st.integers(0, 99))
def test_an_undersampled_set_repeats_nothing_and_is_even(
    labels: npt.NDArray[np.int64], seed: int
) -> None:
    """A test set with copies would have too narrow intervals."""
    indices = undersample(labels, seed=seed)
    counts = Counter(labels.tolist())
    assert Counter(labels[indices].tolist()) == dict.fromkeys(counts, min(counts.values()))
    assert len(set(indices.tolist())) == len(indices)
    assert np.array_equal(indices, undersample(labels, seed=seed))


@LAW
@given(labels=LABELS)
def test_class_weights_have_mean_one_and_give_classes_equal_mass(
    labels: npt.NDArray[np.int64],
) -> None:
    """Then the loss, and with it the learning rate, keeps its scale."""
    weights = class_weights(labels, 7)
    assert weights.dtype == np.float32
    assert weights[labels].mean() == pytest.approx(1, rel=1e-5)
    mass = np.bincount(labels, weights=weights[labels], minlength=7)
    assert np.ptp(mass[mass > 0]) == pytest.approx(0, abs=1e-4)
    assert weights[6] == 0


def test_labels_that_are_no_indices_are_refused() -> None:
    """A wrong shape or type would be balanced into nonsense."""
    for labels in (np.array([], dtype=int), np.array([[0, 1]]), np.array([0.0, 1.0])):
        with pytest.raises(CorpusError, match="one-dimensional array of at least one class index"):
            balance(labels, neutral=None, seed=0)
    with pytest.raises(CorpusError, match=r"for 2 classes\. Got 0 to 3"):
        class_weights(np.array([0, 3]), 2)
    with pytest.raises(CorpusError, match="Got -1 to 0"):
        class_weights(np.array([-1, 0]), 2)
