"""Filtering: what is dropped, why, and what is not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from emowatch.workshop.building.duplicates import near_duplicates
from emowatch.workshop.building.filtering import FilterOptions, count_words, filter_rows
from emowatch.workshop.building.languages import EnglishCheck
from emowatch.workshop.building.rows import CorpusRow
from tests.workshop.building.rows import natural, silent, texts

ENGLISH = (
    "I lost my dog today",
    "lol ok whatever",
    "BEST DAY EVER!!!",
    "this is so gross, who does that",
    "omg I'm scared rn 😱",
)
FOREIGN = (
    "Ich habe heute meinen Hund verloren.",
    "Je suis tellement triste aujourd'hui.",
    "No me lo puedo creer, qué alegría.",
    "Мне очень страшно сейчас.",
    "今天我真的很开心",
)


def reasons(rows: list[CorpusRow], **options: float) -> list[str | None]:
    """Say of each row why it is dropped, if it is."""
    found = filter_rows(rows, FilterOptions(**options), silent)  # type: ignore[arg-type]
    assert len(found.rows) + len(found.dropped) == len(rows)
    by_id = {one.id: one.reason for one in found.dropped}
    return [by_id.get(row.id) for row in rows]


@pytest.fixture(scope="module")
def check() -> EnglishCheck:
    """Open the model once."""
    return EnglishCheck()


def test_english_is_told_from_other_languages(check: EnglishCheck) -> None:
    """Comments are short and sloppy; those are kept."""
    assert [check.other_language(text) for text in ENGLISH] == [None] * len(ENGLISH)
    assert [check.other_language(text) for text in FOREIGN] == ["de", "fr", "es", "ru", "zh"]


def test_each_row_is_dropped_for_its_reason() -> None:
    """The first of duplicates stays, and its label is told where the other has another."""
    rows = [
        natural("I lost my dog today", "sadness"),
        natural("ok, then !!", "neutral", id="short"),
        natural("i LOST  my dog today", "joy", id="copy"),
        natural(FOREIGN[0], "sadness", id="german"),
        natural("I lost my dog today.", "sadness", id="near"),
        natural("I found my cat today", "joy", id="other"),
    ]
    found = filter_rows(rows, FilterOptions(), silent)
    assert {one.id: one.reason for one in found.dropped} == {
        "short": "fewer than 3 words",
        "copy": "duplicate",
        "german": "not English",
        "near": "near duplicate",
    }
    assert texts(list(found.rows)) == ["I lost my dog today", "I found my cat today"]
    (copy,) = [one for one in found.dropped if one.id == "copy"]
    assert copy.detail == f"of {rows[0].id}, which is labelled sadness"
    assert found.as_object()["dropped"]["duplicate"] == 1


def test_what_is_not_asked_for_is_not_done() -> None:
    """Each rule can be turned off."""
    rows = [natural(text, "joy") for text in ("ok then", FOREIGN[1], "a b c d e f", "a b c d e f.")]
    assert reasons(rows, language=False, near=1, min_words=0) == [None] * 4
    assert reasons(rows, language=True, near=1, min_words=0)[1] == "not English"


def test_filtering_twice_drops_nothing_more() -> None:
    """What is kept has passed."""
    rng = random.Random(0)
    words = "we saw the old red bus near town and cried for hours".split()
    base = [" ".join(rng.choices(words, k=12)) for _ in range(100)]
    rows = [
        natural(f"{text}{end}", "joy", id=f"{n}{end}", group="of a split")
        for end in ("", "!", " !?")
        for n, text in enumerate(base)
    ]
    once = filter_rows(rows, FilterOptions(language=False), silent)
    twice = filter_rows(list(once.rows), FilterOptions(language=False), silent)
    assert 0 < len(once.rows) < 300
    assert twice.rows == once.rows
    assert {row.group for row in once.rows} == {None}


def test_near_duplicates_are_those_of_an_exact_search() -> None:
    """Hashing finds candidates; similarity is counted exactly, so no pair is wrong."""
    rng = random.Random(1)
    base = [" ".join(rng.choices("abcdefghijklmnop", k=60)) for _ in range(150)]
    changed = []
    for text in base[:60]:
        letters = list(text)
        for place in rng.sample(range(len(letters)), rng.choice([1, 2, 4, 30])):
            letters[place] = "z"
        changed.append("".join(letters))
    every = [*base, *changed]

    def pieces(text: str) -> set[str]:
        return {text[n : n + 5] for n in range(len(text) - 4)}

    exact = {}
    for later in range(len(every)):
        for earlier in range(later):
            if earlier not in exact:
                one, other = pieces(every[earlier]), pieces(every[later])
                if len(one & other) / len(one | other) >= 0.8:
                    exact[later] = earlier
                    break
    found = near_duplicates(every, 0.8)
    assert set(found.items()) <= set(exact.items())
    assert len(exact) > 20 and len(found) >= 0.95 * len(exact)


@pytest.mark.parametrize(
    ("text", "words"), [("", 0), ("😂 😂 😂", 0), ("so, so  good!", 3), ("don't - stop", 2)]
)
def test_words_have_letters_or_digits(text: str, words: int) -> None:
    """Three laughing faces are no sentence."""
    assert count_words(text) == words


def test_the_same_text_twice_is_dropped_once() -> None:
    """Both rows have one id, and it stands for itself; whatever their labels."""
    rows = [natural("I lost my dog today", label) for label in ("sadness", "sadness", "fear")]
    found = filter_rows([*rows, natural("what a lovely day", "joy")], FilterOptions(near=1), silent)
    assert [row.text for row in found.rows] == ["I lost my dog today", "what a lovely day"]
    assert [one.reason for one in found.dropped] == ["duplicate"] * 2


def test_what_was_made_of_a_copy_is_kin_to_the_text_that_stays() -> None:
    """Else one of them could be in the training and the other in the test."""
    first, copy = (
        natural(text, "neutral")
        for text in ("The bus was late again today", "the bus was  late again today")
    )
    made = replace(
        natural("I could scream, that bus is late again", "anger"),
        provenance="rewritten",
        parent=copy.id,
        examples=(copy.id,),
    )
    kept = filter_rows([first, copy, made], FilterOptions(near=1), silent).rows
    assert [row.id for row in kept] == [first.id, made.id]
    assert (kept[1].parent, kept[1].examples) == (first.id, (first.id,))
