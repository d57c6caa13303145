"""Labels: from what stands in a cell to a class, and the order of the classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.workshop.corpora import read_corpus
from tests.workshop.corpora.small_files import (
    PAIR,
    csv_text,
    goemotions,
    jsonl,
    pairs,
    refusal,
    write,
)


def test_labels_are_stripped_and_composed(tmp_path: Path) -> None:
    """One class must not become two through a blank or a way of writing an accent."""
    rows = [("a", " gêne "), ("b", "ge\u0302ne"), ("c", "joie")]
    corpus = read_corpus(write(tmp_path / "a.csv", csv_text(rows)), min_per_class=0)
    assert corpus.counts() == {"gêne": 2, "joie": 1}


def test_labels_asked_for_fix_the_order_and_put_others_aside(tmp_path: Path) -> None:
    """A corpus is evaluated with the classes of a bank, in the bank's order."""
    path = write(tmp_path / "a.csv", csv_text([*PAIR, ("c", "boredom")]))
    corpus = read_corpus(path, labels=["sadness", "joy", "fear"], min_per_class=0)
    assert corpus.labels == ("sadness", "joy", "fear")
    assert corpus.counts() == {"sadness": 1, "joy": 1, "fear": 0}
    assert [example.label for example in corpus.examples] == [1, 0]
    assert [(row.reason, row.detail) for row in corpus.quarantined] == [
        ("unknown label", "'boredom'")
    ]


def test_ids_go_through_the_names_beside_the_file_before_those_asked_for(tmp_path: Path) -> None:
    """Id 1 of the file is not the second label of the bank."""
    corpus = read_corpus(goemotions(tmp_path), labels=["sadness", "joy"], min_per_class=0)
    assert pairs(corpus) == [('a "fine" day', "joy"), ("rain, again", "sadness")]
    assert corpus.quarantine_counts() == {"unknown label": 1, "several labels": 1}


def test_ids_count_in_the_labels_asked_for_when_nothing_else_names_them(tmp_path: Path) -> None:
    """A file of bare ids needs names from somewhere."""
    path = goemotions(tmp_path, names=None)
    corpus = read_corpus(path, labels=["anger", "joy"], min_per_class=0)
    assert pairs(corpus) == [("not my turn", "anger"), ('a "fine" day', "joy")]
    assert corpus.quarantined[0].detail == "'2'"


def test_ids_without_names_are_their_own_names_in_order_of_number(tmp_path: Path) -> None:
    """Alphabetical order would put 10 before 2."""
    path = write(tmp_path / "a.csv", csv_text([("a", "10"), ("b", "2"), ("c", "0")]))
    assert read_corpus(path, min_per_class=0).labels == ("0", "2", "10")


def test_labels_that_are_numbers_are_names_and_no_ids(tmp_path: Path) -> None:
    """Rating 1 of 1 to 3 is not the second rating."""
    path = write(tmp_path / "a.csv", csv_text([("a", "1"), ("b", "2"), ("c", "0")]))
    corpus = read_corpus(path, labels=["1", "2", "3"], min_per_class=0)
    assert pairs(corpus) == [("a", "1"), ("b", "2")]


def test_names_beside_the_file_order_labels_that_are_words(tmp_path: Path) -> None:
    """The order in labels.txt is the author's; it counts if it covers the file."""
    path = write(tmp_path / "a.csv", csv_text(PAIR))
    write(tmp_path / "labels.txt", "sadness\njoy\nfear\n")
    assert read_corpus(path, min_per_class=0).labels == ("sadness", "joy", "fear")
    write(tmp_path / "labels.txt", "sadness\nfear\n")
    assert read_corpus(path, min_per_class=0).labels == ("joy", "sadness")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (["joy"], ["joy"]),
        (["joy", "joy", None, " "], ["joy"]),
        ([2], ["sadness"]),
        (1, ["joy"]),
        (1.0, ["joy"]),
        ("[1]", ["joy"]),
        ("['joy', 'sadness']", ["joy", "sadness"]),
        ("[1 2]", ["joy", "sadness"]),
        ("joy, sadness", ["joy", "sadness"]),
        ("1,2", ["joy", "sadness"]),
    ],
)
def test_cells_hold_labels_in_many_shapes(
    tmp_path: Path, cell: object, expected: list[str]
) -> None:
    """Lists become text when they pass through CSV, ids become floats when a row is missing."""
    write(tmp_path / "labels.txt", "anger\njoy\nsadness")
    rows = [{"text": "here", "label": cell}, {"text": "there", "label": "anger"}]
    path = write(tmp_path / "a.jsonl", jsonl(*rows))
    corpus = read_corpus(path, several="each", min_per_class=0)
    assert [label for text, label in pairs(corpus) if text == "here"] == expected


def test_a_label_with_a_comma_is_one_label_when_it_is_asked_for(tmp_path: Path) -> None:
    """Only the caller can know that it is no list."""
    rows = [{"text": "a", "label": "love, lust"}, {"text": "b", "label": "joy"}]
    path = write(tmp_path / "a.jsonl", jsonl(*rows))
    corpus = read_corpus(path, labels=["joy", "love, lust"], min_per_class=0)
    assert corpus.counts() == {"joy": 1, "love, lust": 1}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("joy\n\nfear", "Label 2 in "),
        ("joy\nfear\njoy", "The label 'joy' is in "),
        (b"\xff\xfe\xfa", "Could not read the label names in "),
    ],
)
def test_a_list_of_names_that_cannot_be_counted_in_is_refused(
    tmp_path: Path, names: str | bytes, words: str
) -> None:
    """A blank line shifts every id after it by one."""
    path = write(tmp_path / "a.csv", csv_text(PAIR))
    write(tmp_path / "labels.txt", names)
    assert words in refusal(path)


def test_labels_asked_for_must_be_distinct(tmp_path: Path) -> None:
    """Two heads of one name could not be told apart."""
    path = write(tmp_path / "a.csv", csv_text(PAIR))
    assert "'joy' is in the labels asked for twice" in refusal(path, labels=["joy", "joy "])
    assert "There is no label in the labels asked for" in refusal(path, labels=[])
