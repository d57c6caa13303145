"""Encodings: a file saved in another one says which, as far as its bytes tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.workshop.corpora import read_corpus
from tests.workshop.corpora.small_files import csv_text, refusal, write

PLAIN = ("plain words", "joy")
CAFE, QUOTED, BOY = ("café", "sadness"), ("“well”", "sadness"), ("garçon", "sadness")


@pytest.mark.parametrize(
    ("row", "saved", "hint"),
    [
        (CAFE, "latin-1", "byte 0xe9 is no utf-8, and latin-1 reads it as 'é': try --encoding"),
        (QUOTED, "cp1252", "and cp1252 reads it as '“': try --encoding cp1252"),
        (BOY, "mac-roman", "and mac-roman reads it as 'ç': try --encoding mac-roman"),
    ],
)
def test_a_wrong_encoding_names_the_one_to_try(
    tmp_path: Path, row: tuple[str, str], saved: str, hint: str
) -> None:
    """With a letter as it would then be read, by which a person sees whether that is it."""
    path = write(tmp_path / "a.csv", csv_text([PLAIN, row]).encode(saved))
    assert hint in refusal(path, min_per_class=0)
    right = read_corpus(path, encoding=saved, min_per_class=0)
    assert [example.text for example in right.examples] == [PLAIN[0], row[0]]
    assert right.encoding_hint == ""


def test_rows_that_can_be_read_are_read_and_the_hint_is_kept(tmp_path: Path) -> None:
    """A set of which few rows hold such bytes is measured, and says so."""
    rows = [PLAIN, ("more plain words", "sadness"), CAFE]
    path = write(tmp_path / "a.csv", csv_text(rows).encode("latin-1"))
    corpus = read_corpus(path, min_per_class=0)
    assert corpus.quarantine_counts() == {"undecodable bytes": 1}
    assert corpus.encoding_hint.endswith("try --encoding latin-1")


def test_utf_8_that_was_read_as_something_else_is_noticed(tmp_path: Path) -> None:
    """Nothing fails there: every byte is a letter of latin-1, and the texts are spoilt."""
    path = write(tmp_path / "a.csv", csv_text([PLAIN, CAFE, QUOTED]))
    spoilt = read_corpus(path, encoding="latin-1", min_per_class=0)
    assert "look like UTF-8 that was read as latin-1: leave --encoding out" in spoilt.encoding_hint
    assert read_corpus(path, min_per_class=0).encoding_hint == ""


def test_utf_16_without_a_mark_is_refused_with_its_name(tmp_path: Path) -> None:
    """As UTF-8 it is text with zero bytes in it, and no column would be found."""
    path = write(tmp_path / "a.csv", csv_text([PLAIN, CAFE]).encode("utf-16-le"))
    assert "--encoding utf-16-le or utf-16-be" in refusal(path)
    assert len(read_corpus(path, encoding="utf-16-le", min_per_class=0)) == 2
