"""What all formats share: short details of what is wrong, and extras asked for by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from emowatch.workshop.corpora import read_corpus
from emowatch.workshop.corpora import tables as tables_module
from tests.workshop.corpora.small_files import PAIR, jsonl, refusal, write


def test_details_are_short_and_printable(tmp_path: Path) -> None:
    """They end in reports and on terminals."""
    rows = [{"text": ["\x1b[2J" * 999], "label": "joy"}, {"text": "x", "label": "\x1b" * 999}]
    rows += [{"text": text, "label": label} for text, label in PAIR]
    path = write(tmp_path / "a.jsonl", jsonl(*rows, ["long"] * 99, "w" * 999))
    corpus = read_corpus(path, labels=["joy", "sadness"], min_per_class=0)
    assert len(corpus.quarantined) == 4
    assert all(len(row.detail) <= 80 and row.detail.isprintable() for row in corpus.quarantined)


def hide(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    """Make the import of an extra fail."""
    real = importlib.import_module

    def without(name: str) -> ModuleType:
        if name.partition(".")[0] == hidden:
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(tables_module, "import_module", without)


def test_a_missing_pyarrow_is_named_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback of an import does not say what to install."""
    hide(monkeypatch, "pyarrow")
    message = refusal(write(tmp_path / "a.parquet", "x"))
    assert message == 'Reading Parquet needs pyarrow: pip install "emowatch[data]"'


def test_a_missing_datasets_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the Hub."""
    hide(monkeypatch, "datasets")
    expected = 'Reading a data set from the Hub needs datasets: pip install "emowatch[data]"'
    assert refusal("somebody/letters") == expected
