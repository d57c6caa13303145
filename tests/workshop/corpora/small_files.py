"""Small files to read, and what reading them gives or says.

Every text here was made up for these tests; no file outside the temporary folder is read.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from emowatch.errors import CorpusError
from emowatch.workshop.corpora import Corpus, read_corpus

JOY = "the kettle sang and so did I"
GRIEF = "the chair by the window stays empty"
PAIR = [(JOY, "joy"), (GRIEF, "sadness")]


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, compressed if its name says so."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def csv_text(rows: Iterable[Sequence[str]], header: str = "text,label") -> str:
    """Return rows as CSV without quoting."""
    return "\n".join([header, *(",".join(row) for row in rows)]) + "\n"


def jsonl(*rows: object) -> str:
    """Return one JSON value a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


CONTENTS = {
    ".csv": csv_text(PAIR),
    ".tsv": csv_text(PAIR).replace(",", "\t"),
    ".jsonl": jsonl(*({"text": text, "label": label} for text, label in PAIR)),
    ".json": json.dumps([{"text": text, "label": label} for text, label in PAIR], indent=1),
}


def goemotions(folder: Path, *, names: str | None = "anger\njoy\nsadness") -> Path:
    """Write a folder as GoEmotions lays it out."""
    if names is not None:
        write(folder / "labels.txt", names)
    lines = ["not my turn\t0\tx1", 'a "fine" day\t1\tx2', "rain, again\t2\tx3", "both\t0,2\tx4"]
    return write(folder / "train.tsv", "\n".join(lines) + "\n")


def numbered(count: int, label: str) -> list[tuple[str, str]]:
    """Return rows with texts of their own."""
    return [(f"{label} note {number}", label) for number in range(count)]


def pairs(corpus: Corpus) -> list[tuple[str, str]]:
    """Return (text, label name) of every example."""
    return [(example.text, corpus.labels[example.label]) for example in corpus.examples]


def refusal(source: Path | str, **options: object) -> str:
    """Return the message of the CorpusError that reading raises."""
    with pytest.raises(CorpusError) as caught:
        read_corpus(source, **options)  # type: ignore[arg-type]
    return str(caught.value)
