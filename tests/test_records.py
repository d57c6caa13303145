"""Records: plain values that nobody can change behind another's back."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emowatch import records
from emowatch.labels import LabelSets
from emowatch.records import SEGMENTS, ReplyToken, Scores
from tests.conftest import make_bank_info, make_score

ONE = Scores(("anger", "joy"), np.array([0.25, 0.75], dtype=np.float32))


def test_scores_are_a_mapping_in_the_order_of_the_bank() -> None:
    """What one can do with a dict one can do with scores."""
    assert dict(ONE) == {"anger": 0.25, "joy": 0.75}
    assert list(ONE) == ["anger", "joy"]
    assert len(ONE) == 2
    assert "joy" in ONE and "fear" not in ONE
    assert ONE.get("fear", 0.0) == 0.0
    assert Scores(("anger", "joy"), ONE.array.copy()) == ONE


def test_an_unknown_label_is_answered_with_the_known_ones() -> None:
    """A typo is mended faster when the message holds the right word."""
    with pytest.raises(KeyError, match="no score for 'Joy'; the labels are: anger, joy"):
        ONE["Joy"]


def test_scores_show_themselves_in_few_words() -> None:
    """They are printed from notebooks all the time."""
    assert repr(ONE) == "Scores(anger=0.250, joy=0.750)"


def test_the_array_of_scores_cannot_be_written_to() -> None:
    """All plugins are handed the same array."""
    own = np.array([0.25, 0.75], dtype=np.float32)
    scores = Scores(("anger", "joy"), own)
    with pytest.raises(ValueError, match="read-only"):
        scores.array[0] = 1.0
    assert own.flags.writeable
    assert np.shares_memory(own, scores.array)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9))
def test_the_dominant_label_has_the_highest_score(values: list[float]) -> None:
    """Ties go to the first, so that a display does not flicker between runs."""
    labels = tuple(f"label {i}" for i in range(len(values)))
    scores = Scores(labels, np.array(values, dtype=np.float32))
    assert scores.dominant == labels[values.index(max(values))]


def test_a_reply_token_speaks_for_its_first_bank() -> None:
    """With one bank, nobody wants to name it each time."""
    second = make_bank_info("other", ("calm", "tense"))
    token = ReplyToken(
        text="x", token_id=5, by_bank=(make_score(offset=4), make_score(bank=second, offset=4))
    )
    assert (token.offset, token.dominant, token.scores["joy"]) == (4, "joy", 0.75)


def test_scores_of_all_layers_do_not_stand_in_the_way_of_comparing() -> None:
    """Arrays answer `==` with arrays; a record must answer yes or no."""
    layers = np.zeros((2, 2), dtype=np.float32)
    score = replace(make_score(), layers=(0, 2), layer_scores=layers)
    assert score == replace(score, layer_scores=layers.copy())
    assert score != make_score()


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(records).values() if isinstance(kind, type) and is_dataclass(kind)],
    ids=lambda kind: kind.__name__,
)
def test_every_record_is_frozen_and_has_no_room_for_more(kind: type) -> None:
    """A value that crosses a border stays what it was."""
    made: object = object.__new__(kind)
    first = fields(kind)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(made, first, 1)
    assert not hasattr(made, "__dict__")


def test_the_segments_are_those_of_the_vocabulary() -> None:
    """Traces store a segment by its place in this tuple: a new one goes to the end."""
    assert SEGMENTS == ("system", "user", "thinking", "reply", "tool", "special")


def test_a_bank_that_measures_no_distance_never_abstains() -> None:
    """Nothing is known of it, and nothing is said."""
    assert not make_score().abstains
    assert make_score().label_set == ()


@pytest.mark.parametrize(
    ("distance", "wanted"), [(0.0, False), (1.0, False), (1.01, True), (float("nan"), True)]
)
def test_a_bank_abstains_above_its_limit_and_where_there_is_no_number(
    distance: float, wanted: bool
) -> None:
    """A state that is NaN is like nothing."""
    assert replace(make_score(), distance=distance).abstains is wanted


def test_label_sets_are_worked_out_where_somebody_asks() -> None:
    """From the scores and the offset, with the rule of the bank."""
    sets = LabelSets(level=0.9, bins=(0, 1), thresholds=(0.2, 0.3), last=9)
    assert replace(make_score(), sets=sets).label_set == ("joy", "anger")
    assert replace(make_score(offset=1), sets=sets).label_set == ("joy",)
    assert replace(make_score(offset=None), sets=sets).label_set == ()
