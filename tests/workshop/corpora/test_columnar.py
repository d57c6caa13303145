"""Parquet and the Hub: class names and licence are taken along, and failures put into words."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from emowatch.workshop.corpora import read_corpus
from tests.workshop.corpora.small_files import pairs, refusal, write

# Parquet


def test_parquet_is_read_with_the_class_names_it_carries(tmp_path: Path) -> None:
    """Files of the Hub keep integers in the column and names in the metadata."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
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
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = arrow.array([b"fine", b"\xff\xfe", b"good"], arrow.binary()).view(arrow.string())
    labels = ["joy", "joy", "sadness"]
    parquet.write_table(arrow.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
    corpus = read_corpus(tmp_path / "a.parquet", min_per_class=0)
    assert [(row.row, row.reason) for row in corpus.quarantined] == [(2, "undecodable bytes")]


def test_a_damaged_parquet_file_is_refused_in_words(tmp_path: Path) -> None:
    """Arrow's own exception speaks of magic bytes."""
    pytest.importorskip("pyarrow")
    message = refusal(write(tmp_path / "a.parquet", "not parquet at all"))
    assert "is no intact Parquet file" in message
    assert "Fetch or write it again." in message


# The Hub


class FakeDataset(list[dict[str, object]]):
    """The part of a data set that the reader uses."""

    _fingerprint = "f1n9e2"

    def __init__(self) -> None:
        super().__init__(
            {"text": text, "label": label, "id": "x"} for text, label in [("a", 0), ("b", 1)]
        )
        self.column_names = ["text", "label", "id"]
        self.features = {"label": SimpleNamespace(names=["sadness", "joy"])}
        self.info = SimpleNamespace(license="cc-by-4.0")

    def select_columns(self, names: list[str]) -> list[dict[str, object]]:
        return [{name: row[name] for name in names} for row in self]


def fake_hub(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None = None
) -> list[tuple[str, dict[str, object]]]:
    """Put a Hub without a network in the place of ``datasets``; return its log of calls."""
    calls: list[tuple[str, dict[str, object]]] = []

    def load_dataset(name: str, **options: object) -> FakeDataset:
        calls.append((name, options))
        if error is not None:
            raise error
        return FakeDataset()

    module = ModuleType("datasets")
    monkeypatch.setattr(module, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_a_data_set_of_the_hub_is_read_with_its_names_and_licence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its integers mean nothing without its features, and its licence belongs on the card."""
    calls = fake_hub(monkeypatch)
    corpus = read_corpus("somebody/letters", split="test", min_per_class=0)
    assert pairs(corpus) == [("a", "sadness"), ("b", "joy")]
    assert corpus.labels == ("sadness", "joy")
    assert (corpus.sha256, corpus.licence) == ("f1n9e2", "cc-by-4.0")
    assert calls == [("somebody/letters", {"split": "test", "revision": None})]
    assert (corpus.source, corpus.address) == ("somebody/letters (split test)", "somebody/letters")


def test_a_hub_address_may_name_a_revision_and_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision is what makes a result repeatable; code of a data set is never asked for."""
    calls = fake_hub(monkeypatch)
    read_corpus("hf://datasets/some/letters@v2/more/a.csv", min_per_class=0)
    options = {"split": "train", "revision": "v2", "data_files": {"train": "more/a.csv"}}
    assert calls == [("some/letters", options)]


def test_what_the_hub_answers_is_passed_on_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exceptions are many, and long."""
    fake_hub(monkeypatch, FileNotFoundError("no such data set.\nMore words"))
    message = refusal("somebody/letters")
    assert "Could not load the data set 'somebody/letters', split 'train'" in message
    assert "because: no such data set. Nor is there a file somebody/letters here." in message
    assert "is no data-set id" in refusal("hf://datasets/letters")


def test_a_mistyped_path_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """``data/train.csv`` has the shape of a data-set id."""
    calls = fake_hub(monkeypatch)
    assert "there is no such file" in refusal("nowhere/train.csv")
    assert calls == []
