"""The control task means nothing, and can be known by heart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emowatch.errors import CorpusError
from emowatch.studies import control
from emowatch.studies.control import control_task
from emowatch.workshop.corpora import Corpus, Example


def corpus(*texts: str) -> Corpus:
    """Make a corpus of three labels, all examples of the first."""
    return Corpus(
        examples=tuple(
            Example(text=text, label=0, group=str(row), row=row) for row, text in enumerate(texts)
        ),
        labels=("a", "b", "c"),
        quarantined=(),
        source="made up",
        sha256="",
        text_column="text",
        label_column="label",
        licence=None,
    )


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "FEWEST", 1)


WORDS = corpus(*(f"{chr(97 + n)}{chr(97 + n)} rest {n}" for n in range(26)))


def test_a_first_word_always_has_the_same_class() -> None:
    """Whatever follows it, on either side, in any case."""
    test = corpus(*(f"{e.text.split()[0].upper()}, other" for e in WORDS.examples))
    learned, held = control_task(WORDS, test, seed=0)
    assert [e.label for e in learned.examples] == [e.label for e in held.examples]
    assert {e.label for e in learned.examples} == {0, 1, 2}


def test_texts_that_begin_alike_are_resampled_together() -> None:
    """Chance dealt their class once: they are one draw, not many."""
    test = corpus(*(e.text for e in WORDS.examples), "AA, other", "aa again")
    _, held = control_task(WORDS, test, seed=0)
    alike = [e.group for e in held.examples if e.text.casefold().startswith("aa")]
    assert len(alike) == 3 and len(set(alike)) == 1
    assert len({e.group for e in held.examples}) == 26


def test_another_seed_deals_other_classes() -> None:
    """The task is random, not the words."""
    dealt = [[e.label for e in control_task(WORDS, WORDS, seed=n)[0].examples] for n in (0, 1)]
    assert dealt[0] != dealt[1]


def test_words_that_training_never_had_are_left_out() -> None:
    """Their class could not be known; texts without a word have none."""
    test = corpus(*(e.text for e in WORDS.examples), "unheard of", "…", "")
    _, held = control_task(WORDS, test, seed=0)
    assert [e.row for e in held.examples] == list(range(26))


def test_too_few_texts_of_a_class_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could be said, and the message says what to do."""
    monkeypatch.setattr(control, "FEWEST", 10)
    few = replace(WORDS, examples=WORDS.examples[:5])
    with pytest.raises(CorpusError, match=r"fewer than 10 begin .* --no-control"):
        control_task(WORDS, few, seed=0)
