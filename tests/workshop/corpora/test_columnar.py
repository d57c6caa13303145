"""Parquet, with the class names it carries, and the addresses of data sets of the Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from emowatch.workshop.corpora import read_corpus
from emowatch.workshop.corpora.hub import parse_address
from tests.workshop.corpora.small_files import pairs, refusal, write

# Parquet


def test_parquet_is_read_with_the_class_names_it_carries(tmp_path: Path) -> None:
    """Files of the Hub keep integers in the column and names in the metadata."""
    feature = {"names": ["joy", "sadness"], "_type": "ClassLabel"}
    for column, values, described in (
        ("label", [0, 1, 0, 7], feature),
        ("labels", [[0], [1], [0, 1], []], {"feature": feature, "_type": "List"}),
        ("labels", [[0], [1], [0], [1]], [feature]),
        ("emotion", ["joy", "sadness", None, "joy"], None),
    ):
        table = arrow.table({"id": [1, 2, 3, 4], "text": ["a", "b", None, "d"], column: values})
        info = {"info": {"features": {column: described} if described else {}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        path = tmp_path / f"{column}.parquet"
        parquet.write_table(table, path)
        corpus = read_corpus(path, min_per_class=0)
        assert pairs(corpus)[:2] == [("a", "joy"), ("b", "sadness")]
        assert corpus.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert corpus.quarantined[0].row == 3


def test_undecodable_strings_in_parquet_cost_their_row(tmp_path: Path) -> None:
    """Arrow checks no strings when it reads them."""
    texts = arrow.array([b"fine", b"\xff\xfe", b"good"], arrow.binary()).view(arrow.string())
    labels = ["joy", "joy", "sadness"]
    parquet.write_table(arrow.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
    corpus = read_corpus(tmp_path / "a.parquet", min_per_class=0)
    assert [(row.row, row.reason) for row in corpus.quarantined] == [(2, "undecodable bytes")]


def test_a_damaged_parquet_file_is_refused_in_words(tmp_path: Path) -> None:
    """Arrow's own exception speaks of magic bytes."""
    message = refusal(write(tmp_path / "a.parquet", "not parquet at all"))
    assert "is no intact Parquet file" in message
    assert "Fetch or write it again." in message


# The Hub: see tests/hub for what is asked of a real one


def test_a_data_set_without_an_owner_is_no_id() -> None:
    """It would be looked for in vain."""
    assert "is no data-set id" in refusal("hf://datasets/letters")


def test_a_mistyped_path_is_not_looked_for_on_the_hub() -> None:
    """``data/train.csv`` has the shape of a data-set id."""
    assert "there is no such file" in refusal("nowhere/train.csv")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("a/b", ("a/b", None, None, None)),
        ("a/b:raw", ("a/b", None, "raw", None)),
        ("a/b@v2:raw", ("a/b", "v2", "raw", None)),
        ("hf://datasets/a/b.c@v2/more/d.csv", ("a/b.c", "v2", None, "more/d.csv")),
        ("a/b@refs/convert/parquet", ("a/b", "refs/convert/parquet", None, None)),
        ("a/b@refs/convert/parquet:raw", ("a/b", "refs/convert/parquet", "raw", None)),
        ("a/b@refs/pr/7/d.csv", ("a/b", "refs/pr/7", None, "d.csv")),
    ],
)
def test_an_address_may_name_a_revision_and_a_configuration_or_a_file(
    source: str, parts: tuple[str | None, ...]
) -> None:
    """A revision is what makes a result repeatable."""
    assert dataclasses.astuple(parse_address(source)) == parts
