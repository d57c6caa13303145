"""Files: which encodings are read, and what is said of a file that cannot be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from emowatch.workshop.corpora import read_corpus
from tests.workshop.corpora.small_files import CONTENTS, JOY, PAIR, csv_text, pairs, refusal, write

# Encodings


@pytest.mark.parametrize("suffix", CONTENTS)
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, suffix: str) -> None:
    """Spreadsheets write one, and the column would then not be called text."""
    path = write(tmp_path / f"a{suffix}", b"\xef\xbb\xbf" + CONTENTS[suffix].encode())
    assert pairs(read_corpus(path, min_per_class=0)) == PAIR


def test_another_encoding_can_be_named(tmp_path: Path) -> None:
    """crowd-enVENT is ISO-8859-1."""
    content = csv_text([("café fermé", "sadness"), (JOY, "joy")]).encode("latin-1")
    corpus = read_corpus(write(tmp_path / "a.csv", content), encoding="latin-1", min_per_class=0)
    assert corpus.examples[0].text == "café fermé"


def test_utf_16_is_read_when_named(tmp_path: Path) -> None:
    """Its lines cannot be split as bytes."""
    path = write(tmp_path / "a.csv", csv_text(PAIR).encode("utf-16"))
    assert pairs(read_corpus(path, encoding="utf-16", min_per_class=0)) == PAIR


def test_encodings_in_doubt_are_refused(tmp_path: Path) -> None:
    """A wrong encoding makes wrong texts, or none."""
    path = write(tmp_path / "a.csv", csv_text(PAIR).encode("utf-16"))
    assert "starts like a UTF-16 file. Pass --encoding utf-16" in refusal(path)
    assert "knows no text encoding 'klingon'" in refusal(path, encoding="klingon")
    assert "knows no text encoding 'zlib'" in refusal(path, encoding="zlib")
    odd = write(tmp_path / "b.csv", csv_text(PAIR).encode("utf-16") + b"x")
    assert "Name the file's encoding with --encoding." in refusal(odd, encoding="utf-16")


# Files refused


def test_a_missing_file_is_named_with_what_is_near(tmp_path: Path) -> None:
    """Most missing files are mistyped."""
    write(tmp_path / "letters.csv", csv_text(PAIR))
    message = refusal(tmp_path / "leters.csv")
    assert f"Could not read {tmp_path / 'leters.csv'} because there is no such file." in message
    assert "Similar names beside it: letters.csv." in message
    assert "holds 1 other entries" in refusal(tmp_path / "q.tsv")
    assert f"Nor is there a folder {tmp_path / 'no'}" in refusal(tmp_path / "no" / "q.tsv")


def test_a_directory_is_answered_with_the_files_in_it(tmp_path: Path) -> None:
    """The user is one name away from what was meant."""
    assert "is a directory, with no data file in it" in refusal(tmp_path)
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "z.tsv", "x")
    assert "Name one of the files in it: more/z.tsv." in refusal(tmp_path)
    write(tmp_path / "notes.md", "x")
    for number in range(12):
        write(tmp_path / f"{number:02}.csv", "x")
    message = refusal(tmp_path)
    assert "is a directory. Name one of the files in it: 00.csv, 01.csv" in message
    assert "09.csv and 3 more." in message
    assert "notes.md" not in message


def test_an_unknown_format_is_answered_with_those_known(tmp_path: Path) -> None:
    """A spreadsheet is not guessed at."""
    message = refusal(write(tmp_path / "a.xlsx", "x"))
    assert "does not end in a known format" in message
    assert ".csv, .tsv, .jsonl, .json (each also as .gz) and .parquet" in message


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.csv.gz", "a.parquet"])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, name: str) -> None:
    """It is the trace of a download or an export that failed."""
    assert "because it is empty" in refusal(write(tmp_path / name, ""))
    if name != "a.parquet":
        assert "because it is empty" in refusal(write(tmp_path / name, "\n \n"))


def test_a_truncated_gzip_says_how_far_it_was_read(tmp_path: Path) -> None:
    """The number tells a broken download from a wrong file."""
    notes = [(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest(), "joy") for n in range(9000)]
    path = write(tmp_path / "a.csv.gz", csv_text(notes))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = refusal(path)
    assert "the compressed data is cut short or damaged" in message
    rows = int(message.partition(" after ")[2].partition(" rows")[0].replace(",", ""))
    assert 1000 < rows < 9000
    path.write_bytes(b"plain text")
    assert "after 0 rows. Fetch or compress the file again." in refusal(path)
    path.write_bytes(whole[:2000] + b"\xff" * 2000 + whole[4000:])
    assert "cut short or damaged" in refusal(path)


def test_a_file_that_may_not_be_read_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, which may read everything; hence the patch."""
    path = write(tmp_path / "a.csv", csv_text(PAIR))

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "because this user may not read it" in refusal(path)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    assert "because the system reported: Input/output error" in refusal(path)
