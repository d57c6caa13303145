"""Keywords: what names an emotion is masked, whole words of it, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emowatch.errors import UsageError
from emowatch.labels import EKMAN7
from emowatch.workshop.keywords import MASK, Keywords, keywords_for, read_keywords

BUILT_IN = keywords_for(EKMAN7)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("I am so HAPPY today", "I am so ... today"),
        ("Angry, afraid and sad.", "..., ... and ...."),
        ("my mad_dog and *joy*", "my ..._dog and *...*"),
        ("I'm fed  up with this, grief-stricken too", "I'm ... with this, ... too"),
        ("the madrigal of enjoyableness, a saddle, in fearlessness", None),
        ("joy's end", "...'s end"),
        ("", ""),
    ],
)
def test_whole_words_are_masked_in_any_case(text: str, masked: str | None) -> None:
    """A word inside another names nothing."""
    assert BUILT_IN.masked(text) == (text if masked is None else masked)


def test_every_label_has_its_own_name_among_its_words() -> None:
    """The list is wrong for an emotion that it does not name."""
    for label in EKMAN7:
        assert label in BUILT_IN.forms[label]
        assert len(set(BUILT_IN.forms[label])) == len(BUILT_IN.forms[label])
    assert not BUILT_IN.stems


def test_built_in_lists_share_no_word() -> None:
    """A word in two lists names neither emotion."""
    words = [word for forms in BUILT_IN.forms.values() for word in forms]
    assert sorted(words) == sorted(set(words))
    assert all(word == word.casefold() for word in words)


def test_words_of_all_labels_are_masked_whatever_the_text_is_labelled() -> None:
    """A mask that hung on the label would give it away."""
    assert BUILT_IN.masked("sad but glad") == "... but ..."


def test_a_label_without_a_list_is_masked_in_all_its_forms() -> None:
    """Snowball's stems know that who is annoyed feels annoyance, and that a car is no care."""
    found = keywords_for(["annoyance", "caring", "joy"])
    assert set(found.stems) == {"annoyance", "caring"}
    assert found.masked("Annoyed by annoying cars, I care; what joy") == (
        "... by ... cars, I ...; what ..."
    )
    assert "annoyance" in found.source
    assert "built-in" in found.source


def test_function_words_of_a_label_are_no_keywords() -> None:
    """Masking every "of" and "out" would be an attack on the texts, not on the emotion."""
    found = keywords_for(["fear of missing out"])
    assert set(found.stems["fear of missing out"]) == {"fear", "miss"}
    assert found.masked("out of the blue I missed it") == f"out of the blue I {MASK} it"
    assert keywords_for(["the other"]).stems["the other"]  # it has no better ones


def test_labels_without_letters_have_no_keywords() -> None:
    """Ratings of 1 to 5 are named by no word; there is nothing to measure."""
    found = keywords_for(["1", "2"])
    assert not found
    assert found.masked("one 1 two 2") == "one 1 two 2"


def test_the_control_masks_as_many_words_and_no_keyword() -> None:
    """The fall must not come from holes in the text alone."""
    text = "happy birds sing sadly over the old bridge"
    control, n = BUILT_IN.masked_elsewhere(text, seed=3)
    assert n == 2
    assert control.count(MASK) == 2
    assert control.startswith("happy ")
    assert "sadly" in control
    assert (control, n) == BUILT_IN.masked_elsewhere(text, seed=3)
    others = {BUILT_IN.masked_elsewhere(text, seed=seed)[0] for seed in range(20)}
    assert len(others) > 5
    assert BUILT_IN.masked_elsewhere("happy, happy!", seed=0) == ("happy, happy!", 0)


def test_words_of_a_file_replace_the_built_in_ones(tmp_path: Path) -> None:
    """Other languages and other labels have words of their own."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"Joy": ["Freude", "froh"]}), encoding="utf-8")
    found = read_keywords(path, EKMAN7)
    assert found.masked("FREUDE und joy") == "... und joy"
    assert found.source == "the file mine.json"
    assert found.sha256 != BUILT_IN.sha256
    assert found.sha256 == Keywords({"joy": ["Freude", "froh"]}, {}, "elsewhere").sha256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ("not JSON", '{"joy": ["joy", "happy"]}')),
        ("[]", ("object of labels",)),
        ("{}", ("object of labels",)),
        ('{"joyy": ["joy"]}', ("no label 'joyy'", "Did you mean 'joy'?", "anger, disgust")),
        ('{"joy": "joy"}', ("'joy' a list of words",)),
        ('{"joy": ["glad"], "joy": ["gay"]}', ("'joy' twice",)),
        ('{"joy": [3]}', ("3", "no word or phrase")),
        ('{"joy": ["?!"]}', ("no word or phrase",)),
        ('{"joy": [""]}', ("no word or phrase",)),
        ('{"joy": ["a\\u001b[2J"]}', ("no word or phrase",)),
    ],
)
def test_a_file_that_is_no_list_of_words_is_refused(
    tmp_path: Path, content: str, words: tuple[str, ...]
) -> None:
    """Before any state is read."""
    path = tmp_path / "mine.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_keywords(path, EKMAN7)
    assert "mine.json" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With the reason of the system."""
    with pytest.raises(UsageError, match="No such file"):
        read_keywords(tmp_path / "none.json", EKMAN7)
