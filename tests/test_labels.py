"""Labels: what may be one, and the short sign by which it is told from the others."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emowatch.labels import (
    EKMAN7,
    MAX_LABEL_LENGTH,
    MAX_LABELS,
    NEUTRAL,
    LabelSets,
    check_labels,
    signs,
)

words = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=12, unique=True)


def test_the_seven_emotions_are_sound_and_hold_neutral() -> None:
    """Banks, corpora and the demo speak of these."""
    assert check_labels(EKMAN7) == EKMAN7
    assert NEUTRAL in EKMAN7
    assert list(EKMAN7) == sorted(EKMAN7)


def test_labels_come_back_as_a_tuple_in_their_order() -> None:
    """The order is that of the scores."""
    assert check_labels(["joy", "anger"]) == ("joy", "anger")


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ([], f"1 to {MAX_LABELS} labels, got 0"),
        ([str(i) for i in range(MAX_LABELS + 1)], f"got {MAX_LABELS + 1}"),
        ([""], "must have 1 to"),
        (["x" * (MAX_LABEL_LENGTH + 1)], "must have 1 to"),
        ([7], "got 7"),
        (["a\x1b[2J"], "unprintable"),
        (["joy", "anger", "joy"], "got joy more than once"),
    ],
)
def test_what_cannot_be_a_set_of_labels_is_refused(labels: list[str], complaint: str) -> None:
    """Labels come from files that somebody else wrote."""
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        check_labels(labels)
    assert "\x1b" not in str(caught.value)


def test_the_greatest_set_of_the_longest_labels_is_accepted() -> None:
    """The limits themselves are allowed."""
    labels = [f"{i:03}".ljust(MAX_LABEL_LENGTH, "x") for i in range(MAX_LABELS)]
    assert len(check_labels(labels)) == MAX_LABELS


def test_signs_are_as_short_as_can_be() -> None:
    """A graph in 80 columns has no room for names."""
    assert signs(EKMAN7) == {
        "anger": "a",
        "disgust": "d",
        "fear": "f",
        "joy": "j",
        "neutral": "n",
        "sadness": "sa",
        "surprise": "su",
    }


@given(words)
def test_each_sign_is_distinct_and_begins_its_label(labels: list[str]) -> None:
    """Colour is never the only sign, so the sign must tell labels apart."""
    made = signs(labels)
    assert list(made) == labels
    assert len(set(made.values())) == len(labels)
    assert all(sign and label.startswith(sign) for label, sign in made.items())


# Sets of labels

SETS = LabelSets(level=0.9, bins=(0, 1, 8), thresholds=(0.5, 0.2, 0.1), last=40)
SCORES = {"anger": 0.15, "fear": 0.55, "joy": 0.2, "sadness": 0.1}


@pytest.mark.parametrize(
    ("offset", "wanted"),
    [
        (0, ("fear",)),
        (1, ("fear", "joy")),
        (7, ("fear", "joy")),
        (8, ("fear", "joy", "anger", "sadness")),
        (40, ("fear", "joy", "anger", "sadness")),
        (41, ()),
        (None, ()),
    ],
)
def test_a_set_holds_the_labels_that_reach_the_threshold_of_the_offsets_bin(
    offset: int | None, wanted: tuple[str, ...]
) -> None:
    """Highest first; nothing where nothing was calibrated."""
    assert SETS.of(SCORES, offset) == wanted


def test_a_set_is_never_empty_where_it_was_calibrated() -> None:
    """Sure that it is none of them would be nonsense."""
    sure = LabelSets(level=0.9, bins=(0,), thresholds=(0.9,), last=0)
    assert sure.of(SCORES, 0) == ("fear",)


def test_scores_that_are_no_numbers_have_no_set() -> None:
    """Comparisons with NaN are all false, and a set of one would look sure."""
    assert SETS.of(SCORES | {"joy": float("nan")}, 0) == ()
