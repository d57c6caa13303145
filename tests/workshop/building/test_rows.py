"""Rows of corpora: what is written is read again, and other people's files are natural."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emowatch.errors import CorpusError, EmowatchError, UsageError
from emowatch.workshop.building.rows import (
    Dropped,
    check_out,
    quarantine_beside,
    read_rows,
    write_rows,
)
from emowatch.workshop.corpora import read_corpus
from tests.workshop.building.rows import natural, some_rows

WRITTEN = natural(
    "so\nscared 😱 \u2028 \x1b[2J",
    "fear",
    id="x",
    parent="p",
    provenance="synthetic",
    intensity=3,
    examples=("a", "b"),
    source="a.csv",
    model="tiny",
    template="synthesize:ab",
    judge="other",
    group="g",
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """With all that is known of each row, and no more."""
    rows = [*some_rows(2), WRITTEN]
    write_rows(tmp_path / "a.jsonl", rows)
    found = read_rows(tmp_path / "a.jsonl")
    assert list(found.rows) == rows and not found.aside
    first = json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert set(first) == {"id", "text", "label", "provenance", "parent"}


def test_training_keeps_the_children_of_a_text_together(tmp_path: Path) -> None:
    """`read_corpus` groups such a file by itself; what is named on the command line goes before."""
    rows = [natural(f"t{n}", "joy", id=f"i{n}", parent=f"p{n % 3}") for n in range(6)]
    write_rows(tmp_path / "a.jsonl", [*rows, natural("so scared", "fear")])
    corpus = read_corpus(tmp_path / "a.jsonl", min_per_class=0)
    assert [example.group for example in corpus.examples][:6] == ["p0", "p1", "p2"] * 2
    named = read_corpus(tmp_path / "a.jsonl", min_per_class=0, group_column="id")
    assert [example.group for example in named.examples][:2] == ["i0", "i1"]
    grouped = [natural(f"t{n}", "joy", group=f"g{n % 2}") for n in range(4)]
    write_rows(tmp_path / "b.jsonl", [*grouped, WRITTEN])
    corpus = read_corpus(tmp_path / "b.jsonl", min_per_class=0)
    assert [example.group for example in corpus.examples] == ["g0", "g1", "g0", "g1", "g"]


def test_another_files_rows_are_natural_and_their_own_parents(tmp_path: Path) -> None:
    """The three columns of GoEmotions, with names for its ids."""
    (tmp_path / "labels.txt").write_text("anger\njoy\n", encoding="utf-8")
    path = tmp_path / "a.tsv"
    path.write_text("so good\t1\tx1\nbad\t0\tx2\nboth\t0,1\tx3\nso good\t1\tx4\n", encoding="utf-8")
    found = read_rows(path)
    assert [(row.text, row.label) for row in found.rows] == [
        ("so good", "joy"),
        ("bad", "anger"),
        ("so good", "joy"),
    ]
    assert all(row.id == row.parent and row.provenance == "natural" for row in found.rows)
    assert found.rows[0].id == found.rows[2].id and found.rows[0].source == "a.tsv"
    assert found.aside == {"several labels": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": " "}, "empty text"),
        ({"text": 4}, "text not a string"),
        ({"label": ""}, "no label"),
        ({"label": "a\x1bb"}, "unknown label"),
        ({"parent": None}, "malformed row"),
        ({"id": 7}, "malformed row"),
        ({"provenance": "stolen"}, "malformed row"),
        ({"text": "\ud800"}, "undecodable bytes"),
    ],
)
def test_a_row_that_cannot_be_used_is_counted(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    """Files are edited by hand."""
    good = some_rows(1, ["joy"])[0].as_object()
    lines = [json.dumps(good), json.dumps(good | change), "{"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read_rows(tmp_path / "a.jsonl")
    assert len(found.rows) == 1
    expected = {reason: 1} | {"malformed row": 2 if reason == "malformed row" else 1}
    assert found.aside == expected


def test_a_file_without_a_usable_row_is_refused_with_the_first(tmp_path: Path) -> None:
    """What is wrong with one is mostly wrong with all."""
    bad = some_rows(1, ["joy"])[0].as_object() | {"label": ""}
    (tmp_path / "a.jsonl").write_text(json.dumps(bad) + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"row 1: no label"):
        read_rows(tmp_path / "a.jsonl")


def test_a_limit_keeps_a_sample_and_columns_can_be_named(tmp_path: Path) -> None:
    """The same sample each time; a column that is named makes it any labelled file."""
    write_rows(tmp_path / "a.jsonl", some_rows(9))
    few = read_rows(tmp_path / "a.jsonl", limit=10).rows
    assert len(few) == 10 and few == read_rows(tmp_path / "a.jsonl", limit=10).rows
    assert len({row.label for row in few}) > 2
    named = read_rows(tmp_path / "a.jsonl", label_column="parent", text_column="text")
    assert named.rows[0].label == named.rows[0].parent


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A reader never sees half of it, and a failure leaves the old one."""
    path = tmp_path / "a.jsonl"
    write_rows(path, some_rows(2))
    before = path.read_bytes()
    with pytest.raises((EmowatchError, UnicodeError)):
        write_rows(path, [natural("fine", "joy"), Dropped(id="a", text="\ud800", reason="x")])
    assert path.read_bytes() == before
    with pytest.raises(EmowatchError, match="No such file or directory"):
        write_rows(tmp_path / "no" / "a.jsonl", [])


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Before anything is asked."""
    (tmp_path / "there.jsonl").write_text("x", encoding="utf-8")
    (tmp_path / "folder.jsonl").mkdir()
    for name, words in (
        ("a.csv", "Name a .jsonl file"),
        ("no/a.jsonl", "no such folder"),
        ("folder.jsonl", "it is a folder"),
        ("there.jsonl", "--overwrite"),
    ):
        with pytest.raises(UsageError, match=words):
            check_out(tmp_path / name, overwrite=False)
    check_out(tmp_path / "there.jsonl", overwrite=True)
    assert quarantine_beside(tmp_path / "a.jsonl") == tmp_path / "a.quarantine.jsonl"
