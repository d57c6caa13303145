"""Texts without labels: every format, copies once, and what cannot be read told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from emowatch.errors import CorpusError
from emowatch.workshop.building.texts import read_texts

TEXTS = ["I lost my dog", "café, at last!", "well"]


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    """Write a file, compressed where its name says so."""
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\n".join([TEXTS[0], "", *TEXTS[1:]])),
        ("a.txt.gz", "\r\n".join(TEXTS)),
        ("a.csv", "n,text\n" + "".join(f'1,"{text}"\n' for text in TEXTS)),
        ("a.tsv", "comment\tscore\n" + "".join(f"{text}\t1\n" for text in TEXTS)),
        ("a.jsonl.gz", "".join(json.dumps({"message": text}) + "\n" for text in TEXTS)),
    ],
)
def test_texts_are_read_from_any_format(tmp_path: Path, name: str, content: str) -> None:
    """In the order of the file; no label is needed."""
    found = read_texts(write(tmp_path / name, content))
    assert list(found.by_id.values()) == TEXTS
    assert found.source == name and not found.aside


def test_a_copy_is_read_once_and_counted(tmp_path: Path) -> None:
    """It would be paid for twice, and stand on both sides of a split."""
    found = read_texts(write(tmp_path / "a.txt", "one two\nthree\none two\none two\n"))
    assert list(found.by_id.values()) == ["one two", "three"]
    assert found.aside == {"copy of another": 2}


def test_an_id_is_that_of_the_text_alone(tmp_path: Path) -> None:
    """So answers are found again when rows are added or moved."""
    one = read_texts(write(tmp_path / "a.txt", "x y\nz\n")).by_id
    other = read_texts(write(tmp_path / "b.csv", "text\nnew\nz\nx y\n")).by_id
    assert set(one.items()) < set(other.items())


def test_a_limit_keeps_what_a_smaller_one_kept(tmp_path: Path) -> None:
    """And not the beginning of the file."""
    path = write(tmp_path / "a.txt", "".join(f"text {n}\n" for n in range(100)))
    few, more = read_texts(path, limit=10).by_id, read_texts(path, limit=30).by_id
    assert set(few) < set(more) and len(more) == 30
    assert list(more.values()) != [f"text {n}" for n in range(30)]


def test_a_wrong_encoding_is_counted_or_refused(tmp_path: Path) -> None:
    """Latin-1 loses the rows that it cannot be mistaken in; UTF-16 all of them."""
    path = write(tmp_path / "a.txt", "plain\ncafé\n", "latin-1")
    found = read_texts(path)
    assert (list(found.by_id.values()), found.aside) == (["plain"], {"undecodable bytes": 1})
    assert list(read_texts(path, encoding="latin-1").by_id.values()) == ["plain", "café"]
    with pytest.raises(CorpusError, match="Name the file's encoding with --encoding"):
        read_texts(write(tmp_path / "b.txt", "é\nü\n", "latin-1"))
    with pytest.raises(CorpusError, match="Pass --encoding utf-16"):
        read_texts(write(tmp_path / "c.txt", "hello there\n", "utf-16"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "\n \n", "holds no usable text"),
        ("a.csv", "n,m\n1,2\n", "No column is called as a text usually is"),
        ("a.csv", "", "because it is empty"),
        ("a.xlsx", "x", "does not end in a known format"),
    ],
)
def test_what_holds_no_text_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    """With what to do."""
    with pytest.raises(CorpusError, match=words):
        read_texts(write(tmp_path / name, content))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Also one with one text a line."""
    for name in ("no.txt", "no.csv"):
        with pytest.raises(CorpusError, match=name):
            read_texts(tmp_path / name)
