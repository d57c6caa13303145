"""Reading: which rows become examples and which are put aside, their groups, and the limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emowatch.errors import CorpusError
from emowatch.workshop.corpora import REASONS, read_corpus
from tests.workshop.corpora.small_files import (
    PAIR,
    csv_text,
    jsonl,
    numbered,
    pairs,
    refusal,
    write,
)

# Rows


def test_every_reason_is_given_to_the_row_that_earned_it(tmp_path: Path) -> None:
    """The words are stable, and each row says where and why it was put aside."""
    lines = [
        *(json.dumps({"text": text, "label": label}).encode() for text, label in PAIR),
        b'{"text": "", "label": "joy"}',
        b'{"text": "\\u200b \\t", "label": "joy"}',
        b'{"label": "joy"}',
        b'{"text": null, "label": "joy"}',
        b'{"text": 12, "label": "joy"}',
        b'{"text": "x"}',
        b'{"text": "x", "label": []}',
        b'{"text": "x", "label": NaN}',
        b'{"text": "x", "label": ["joy", "sadness"]}',
        b'{"text": "x", "label": "awe"}',
        b'{"text": "caf\xe9", "label": "joy"}',
        b'{"text": "half \\ud83d", "label": "joy"}',
        b'{"text": "x", "label": "j\xe9"}',
        b'{"text": "x", "label": {"joy": 1}}',
        b'{"text": "x", ',
        b"[1, 2]",
        b"[" * 100_000,
        b'{"text": "other columns may hold anything", "label": "joy", "who": "\xe9"}',
    ]
    path = write(tmp_path / "a.jsonl", b"\n".join(lines))
    corpus = read_corpus(path, labels=["joy", "sadness"], min_per_class=0)
    assert [(row.row, row.reason) for row in corpus.quarantined] == [
        (3, "empty text"),
        (4, "empty text"),
        (5, "empty text"),
        (6, "empty text"),
        (7, "text not a string"),
        (8, "no label"),
        (9, "no label"),
        (10, "no label"),
        (11, "several labels"),
        (12, "unknown label"),
        (13, "undecodable bytes"),
        (14, "undecodable bytes"),
        (15, "undecodable bytes"),
        (16, "malformed row"),
        (17, "malformed row"),
        (18, "malformed row"),
        (19, "malformed row"),
    ]
    of_maps = {"label left out"}  # see test_mapping.py
    assert {row.reason for row in corpus.quarantined} == set(REASONS) - of_maps
    assert sum(corpus.quarantine_counts().values()) == len(corpus.quarantined)
    assert len(corpus) == 3


def test_several_labels_are_put_aside_or_repeated_or_cut(tmp_path: Path) -> None:
    """The choice changes the corpus, so it is the caller's; copies share a group."""
    rows = [*PAIR, ("mixed", "joy;sadness")]
    text = csv_text(rows).replace("joy;sadness", '"joy,sadness"')
    path = write(tmp_path / "a.csv", text)
    aside = read_corpus(path, min_per_class=0)
    assert aside.quarantine_counts() == {"several labels": 1}
    each = read_corpus(path, several="each", min_per_class=0)
    assert pairs(each)[2:] == [("mixed", "joy"), ("mixed", "sadness")]
    assert each.examples[2].group == each.examples[3].group
    first = read_corpus(path, several="first", min_per_class=0)
    assert pairs(first)[2:] == [("mixed", "joy")]


# Groups and limit


def test_copies_of_a_text_share_a_group(tmp_path: Path) -> None:
    """A copy on the other side of a split is an answer given away."""
    rows = [("Good  Morning", "joy"), ("good morning ", "sadness"), ("good night", "joy")]
    first, second, other = read_corpus(
        write(tmp_path / "a.csv", csv_text(rows)), min_per_class=0
    ).examples
    assert first.group == second.group != other.group


def test_a_named_column_gives_the_groups(tmp_path: Path) -> None:
    """Texts of one author or one topic belong together; a blank falls back to the text."""
    rows = [
        {"text": "a", "label": "joy", "who": 7},
        {"text": "b", "label": "sadness", "who": "7"},
        {"text": "c", "label": "joy", "who": ""},
        {"text": "c", "label": "joy"},
        {"text": "d", "label": "joy", "who": "\ud800"},
    ]
    path = write(tmp_path / "a.jsonl", jsonl(*rows))
    corpus = read_corpus(path, group_column="who", min_per_class=0)
    groups = [example.group for example in corpus.examples]
    assert groups[:2] == ["7", "7"]
    assert groups[2] == groups[3] != "7"
    assert corpus.group_numbers == [0, 0, 1, 1]
    assert corpus.quarantine_counts() == {"undecodable bytes": 1}


def test_a_limit_takes_a_fair_sample_of_the_whole_file(tmp_path: Path) -> None:
    """The head of a sorted file would be one class."""
    path = write(tmp_path / "a.csv", csv_text([*numbered(500, "joy"), *numbered(500, "fear")]))
    corpus = read_corpus(path, limit=200)
    rows = [example.row for example in corpus.examples]
    assert len(corpus) == 200
    assert rows == sorted(rows)
    assert 70 < corpus.counts()["joy"] < 130
    assert read_corpus(path, limit=200) == corpus
    larger = read_corpus(path, limit=400)
    assert set(corpus.examples) < set(larger.examples)
    assert len(read_corpus(path, limit=5000)) == 1000


def test_a_limit_does_not_change_the_classes(tmp_path: Path) -> None:
    """A trial run must build the head that the full run builds."""
    path = write(tmp_path / "a.csv", csv_text([*numbered(90, "joy"), *numbered(90, "fear"), *PAIR]))
    corpus = read_corpus(path, limit=20, min_per_class=0)
    assert corpus.labels == ("fear", "joy", "sadness")
    assert corpus.counts()["sadness"] == 0


# Wishes refused


def test_a_split_of_a_file_is_refused(tmp_path: Path) -> None:
    """Whoever names one believes that only a part of the file is read."""
    path = tmp_path / "all.csv"
    path.write_text("text,label\na,joy\nb,sadness\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"split 'test' .*only data sets of the Hub have splits"):
        read_corpus(path, split="test", min_per_class=0)
    assert len(read_corpus(path, min_per_class=0)) == 2


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    """Zero examples are no corpus."""
    assert "at least 1, or left out. Got 0 instead." in refusal(tmp_path / "a.csv", limit=0)
