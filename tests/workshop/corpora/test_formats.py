"""Formats: CSV, TSV and JSON give the same rows, and a broken line costs only itself."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest

from emowatch.workshop.corpora import read_corpus
from tests.workshop.corpora.small_files import (
    CONTENTS,
    GRIEF,
    PAIR,
    csv_text,
    goemotions,
    numbered,
    pairs,
    refusal,
    write,
)


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("suffix", CONTENTS)
def test_every_text_format_gives_the_same_corpus(
    tmp_path: Path, suffix: str, compression: str
) -> None:
    """The format of a file must not change what is learnt from it."""
    path = write(tmp_path / f"letters{suffix}{compression}", CONTENTS[suffix])
    corpus = read_corpus(path, min_per_class=0)
    assert pairs(corpus) == PAIR
    assert corpus.labels == ("joy", "sadness")
    assert (corpus.text_column, corpus.label_column) == ("text", "label")
    assert corpus.source == str(path)
    assert corpus.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert corpus.quarantined == ()
    assert corpus.licence is None
    assert len(corpus) == 2


def test_a_json_file_may_hold_one_object_a_line(tmp_path: Path) -> None:
    """Many data sets call their JSON lines .json."""
    path = write(tmp_path / "letters.json", CONTENTS[".jsonl"])
    assert pairs(read_corpus(path, min_per_class=0)) == PAIR


def test_rows_are_numbered_by_the_line_they_start_in(tmp_path: Path) -> None:
    """A reader must find a row in an editor, also after texts that span lines."""
    path = write(tmp_path / "a.csv", 'text,label\n"two\nlines",joy\n\nplain,sadness\n')
    corpus = read_corpus(path, min_per_class=0)
    assert [example.row for example in corpus.examples] == [2, 5]
    assert corpus.examples[0].text == "two\nlines"


def test_tsv_takes_quote_characters_as_they_are(tmp_path: Path) -> None:
    """GoEmotions has lone quotes; a quoting reader would glue comments together."""
    text = 'text\tlabel\n"so he says\tjoy\n5" of rain\r again\tsadness\n'
    corpus = read_corpus(write(tmp_path / "a.tsv", text), min_per_class=0)
    assert pairs(corpus) == [('"so he says', "joy"), ('5" of rain\r again', "sadness")]


def test_long_texts_are_read_and_the_limit_of_csv_is_put_back(tmp_path: Path) -> None:
    """The csv module refuses fields over 131,072 characters, and its limit is global."""
    before = csv.field_size_limit()
    path = write(tmp_path / "a.csv", csv_text([("long " * 40_000, "joy"), (GRIEF, "sadness")]))
    assert len(read_corpus(path, min_per_class=0).examples[0].text) == 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("suffix", CONTENTS)
def test_nul_bytes_do_not_stop_the_reading(tmp_path: Path, suffix: str) -> None:
    """Some readers of text stop at a NUL or raise."""
    content = CONTENTS[suffix].replace("kettle", "ket\\u0000tle" if "json" in suffix else "ket\0le")
    corpus = read_corpus(write(tmp_path / f"a{suffix}", content), min_per_class=0)
    assert len(corpus) == 2
    assert "\0" in corpus.examples[0].text


def test_the_headerless_files_of_goemotions_are_recognised(tmp_path: Path) -> None:
    """They are the default corpus of seven-class banks."""
    corpus = read_corpus(goemotions(tmp_path), min_per_class=0)
    assert corpus.labels == ("anger", "joy", "sadness")
    assert pairs(corpus)[:2] == [("not my turn", "anger"), ('a "fine" day', "joy")]
    assert corpus.quarantine_counts() == {"several labels": 1}
    assert (corpus.text_column, corpus.label_column) == ("text", "labels")
    assert [example.row for example in corpus.examples] == [1, 2, 3]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_bad_line_of_a_table_costs_only_itself(tmp_path: Path, suffix: str) -> None:
    """One byte in a million rows must not stop a training."""
    content = csv_text([("caf\udce9", "joy"), *PAIR, ("x", "joy", "more")])
    data = content.encode(errors="surrogateescape") + b"alone\n"
    data = data.replace(b",", b"\t") if suffix == ".tsv" else data
    corpus = read_corpus(write(tmp_path / f"a{suffix}", data), min_per_class=0)
    assert pairs(corpus) == PAIR
    assert [(row.row, row.reason) for row in corpus.quarantined] == [
        (2, "undecodable bytes"),
        (5, "malformed row"),
        (6, "malformed row"),
    ]
    assert corpus.quarantined[1].detail == "3 fields where the header has 2"


def test_broken_quotes_in_csv_cost_only_their_line(tmp_path: Path) -> None:
    """A lenient reader would make a wrong text of it."""
    path = write(tmp_path / "a.csv", csv_text([('"a" b', "joy"), *PAIR, ('"open', "joy")]))
    corpus = read_corpus(path, min_per_class=0)
    assert pairs(corpus) == PAIR
    assert [(row.row, row.reason) for row in corpus.quarantined] == [
        (2, "malformed row"),
        (5, "malformed row"),
    ]


def test_an_open_quote_that_swallows_the_file_is_refused(tmp_path: Path) -> None:
    """Else half a corpus would be missing without a word."""
    path = write(tmp_path / "a.csv", csv_text([*PAIR, ('"open', "joy"), *numbered(50, "joy")]))
    message = refusal(path)
    assert "the quote opened in line 4 is never closed, which swallows the 50 lines" in message
    assert "column names should be, is not CSV" in refusal(write(tmp_path / "b.csv", '"text,a\n'))


def test_json_that_is_neither_lines_nor_an_array_is_refused(tmp_path: Path) -> None:
    """The shapes that do work are named."""
    message = refusal(write(tmp_path / "a.json", json.dumps({"text": "a"}, indent=1)))
    assert "one JSON object spread over several lines" in message
    message = refusal(write(tmp_path / "a.json", '\n[{"text": "a"},\n{"text" "b"}]'))
    assert "its JSON array breaks off: Expecting ':' delimiter in line 3." in message
    assert "(RecursionError)" in refusal(write(tmp_path / "a.json", "[" * 100_000))
