"""Columns: the obvious is guessed, and what is in doubt is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.workshop.corpora import read_corpus
from tests.workshop.corpora.small_files import csv_text, refusal, write


def test_columns_are_guessed_from_their_usual_names(tmp_path: Path) -> None:
    """Nobody should have to name the obvious."""
    path = write(
        tmp_path / "a.csv", csv_text([("1", "x", "joy"), ("2", "y", "fear")], "n,Text,Emotion")
    )
    corpus = read_corpus(path, min_per_class=0)
    assert (corpus.text_column, corpus.label_column) == ("Text", "Emotion")


@pytest.mark.parametrize(
    ("header", "named", "words"),
    [
        ("body,label", {}, ["No column is called as a text usually is", "--text-column"]),
        ("text,mood", {}, ["No column is called as a label usually is", "--label-column"]),
        ("text,comment,label", {}, ["could hold the text: text, comment", "--text-column"]),
        ("text,label,emotion", {}, ["could hold the label: label, emotion", "--label-column"]),
        ("text,label", {"text_column": "body"}, ["no column 'body' to take the text from"]),
        ("text,label", {"label_column": "mood"}, ["no column 'mood'", "--label-column"]),
        ("text,label", {"group_column": "who"}, ["no column 'who'", "--group-column"]),
        ("text,a,a", {"label_column": "a"}, ["several columns 'a'", "--label-column"]),
    ],
)
def test_columns_in_doubt_are_an_error_that_lists_them(
    tmp_path: Path, header: str, named: dict[str, object], words: list[str]
) -> None:
    """A wrong guess would train a probe on the wrong thing without a word."""
    path = write(tmp_path / "a.csv", header + "\n" + ",".join("x" * (header.count(",") + 1)) + "\n")
    message = refusal(path, **named)
    for word in [*words, f"The columns of {path} are: {header.replace(',', ', ')}."]:
        assert word in message
