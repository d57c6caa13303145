"""Checks: too little to learn from is refused, with the counts and what to do."""

from __future__ import annotations

from pathlib import Path

from emowatch.workshop.corpora import read_corpus
from tests.workshop.corpora.small_files import PAIR, csv_text, jsonl, numbered, refusal, write


def test_a_header_without_rows_is_refused(tmp_path: Path) -> None:
    """An empty result of a query looks like this."""
    message = refusal(write(tmp_path / "a.csv", "text,label\n"))
    assert "it has column names and no rows" in message


def test_no_usable_row_is_refused_with_the_counts(tmp_path: Path) -> None:
    """The commonest reason decides the advice."""
    path = write(tmp_path / "a.csv", csv_text([*PAIR, ("", "joy")]))
    message = refusal(path, labels=["Joy", "Sadness"])
    assert "none of its 3 rows is usable: 2 unknown label, 1 empty text." in message
    assert "The first is row 2: unknown label ('joy')." in message
    assert "The labels known here are: Joy, Sadness." in message
    latin = csv_text([("é", "joy"), ("è", "fear")]).encode("latin-1")
    assert "latin-1 reads it as 'é': try --encoding latin-1." in refusal(
        write(tmp_path / "b.csv", latin)
    )
    both = write(tmp_path / "c.jsonl", jsonl({"text": "a", "label": ["joy", "fear"]}))
    assert "Keep them with --several each or --several first." in refusal(both)
    assert "Check --text-column" in refusal(write(tmp_path / "d.csv", "text,label\n,x\n"))


def test_one_class_is_refused_whatever_the_minimum(tmp_path: Path) -> None:
    """Nothing can be told apart from nothing."""
    path = write(tmp_path / "a.csv", csv_text([*numbered(20, "joy"), ("x", "")]))
    message = refusal(path, min_per_class=0)
    assert "only one class is left: joy with 20 examples." in message
    assert "Rows put aside: 1 no label." in message


def test_small_classes_are_refused_with_their_counts(tmp_path: Path) -> None:
    """Ten examples are too few to say anything about a class; 0 turns the check off."""
    rows = [*numbered(30, "joy"), *numbered(9, "fear"), *numbered(10, "anger")]
    path = write(tmp_path / "a.csv", csv_text(rows))
    message = refusal(path)
    assert "1 of its 3 classes has fewer than 10 usable examples: fear 9." in message
    for way in ("Add rows", "merge classes", "min_per_class=0"):
        assert way in message
    assert len(read_corpus(path, min_per_class=0)) == 49
    assert len(read_corpus(path, labels=["joy", "anger"])) == 40
    assert "The limit of 12 examples may be too low: raise --limit." in refusal(path, limit=12)
    assert "--limit" not in refusal(path, limit=1000)
    many = csv_text([(f"t{n}", f"class {n:02}") for n in range(20)])
    assert "class 07 1 and 12 more." in refusal(write(tmp_path / "b.csv", many))


def test_measurements_are_told_from_classes(tmp_path: Path) -> None:
    """EmoBank has valence from 1 to 5 and no label column; naming ``V`` does not make one."""
    path = write(tmp_path / "a.csv", csv_text([("a", "3.0"), ("b", "2.8")], "text,V"))
    assert "--label-column" in refusal(path)
    message = refusal(path, label_column="V")
    assert "Labels such as 2.8 look like measurements; classes are needed." in message
