"""Texts without labels, from any table or from a file with one text a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emowatch.errors import CorpusError
from emowatch.text import clean_line
from emowatch.workshop.building.rows import text_id
from emowatch.workshop.corpora.columns import choose_text_column
from emowatch.workshop.corpora.files import Progress, file_errors, open_text
from emowatch.workshop.corpora.reading import open_table, split_of
from emowatch.workshop.corpora.tables import Row
from emowatch.workshop.corpora.usable import Unusable, usable_text

COPY = "copy of another"


@dataclass(frozen=True, slots=True)
class Texts:
    """Distinct texts by id, in the order of their file."""

    by_id: Mapping[str, str]
    source: str
    """Name of the file, or id of the data set."""
    aside: Mapping[str, int]
    """Rows put aside, by reason; copies among them."""


def read_texts(
    source: str | Path,
    *,
    text_column: str | None = None,
    encoding: str = "utf-8",
    split: str | None = None,
    limit: int | None = None,
) -> Texts:
    """Read what is to be labelled; a text that is there twice is read once.

    Args:
        source: as `read_corpus` takes it, or a ``.txt`` file with one text in each line.
        text_column: its name, where it cannot be guessed.
        encoding: of a text file.
        split: of a Hub data set.
        limit: at most so many texts, those with the smallest hashes.

    Raises:
        CorpusError: if it cannot be read, or holds no usable text.
        RetryableError: if the Hub does not answer.
    """
    by_id: dict[str, str] = {}
    aside = Counter[str]()
    is_file = Path(source).is_file()
    with _values(source, text_column, encoding, split) as values:
        for row, column in values:
            try:
                if row.problem is not None:
                    raise Unusable(row.problem_reason, row.problem)
                text = usable_text(row.values.get(column))
            except Unusable as problem:
                aside[problem.reason] += 1
                continue
            name = text_id(text)
            aside[COPY] += name in by_id
            by_id[name] = text
    aside = +aside
    if not by_id:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in aside.most_common())
        hint = " Name the file's encoding with --encoding." if "undecodable bytes" in aside else ""
        raise CorpusError(
            f"Could not use {clean_line(str(source))} because it holds no usable text "
            f"({reasons or 'it has no rows'}).{hint}"
        )
    if limit is not None:
        kept = set(sorted(by_id)[:limit])  # ids are hashes: a fair sample
        by_id = {name: text for name, text in by_id.items() if name in kept}
    return Texts(by_id, Path(source).name if is_file else str(source), dict(aside.most_common()))


@contextmanager
def _values(
    source: str | Path, text_column: str | None, encoding: str, split: str | None
) -> Iterator[Iterator[tuple[Row, str]]]:
    """Open the source; yield rows with the name of the column that holds the text."""
    path, progress = Path(source), Progress()
    if path.name.lower().removesuffix(".gz").endswith(".txt") and path.is_file():
        with file_errors(path, progress), open_text(path, encoding=encoding, newline="\n") as text:
            numbered = enumerate((line.rstrip("\r\n") for line in text.lines), 1)
            yield ((Row(n, {"text": line}), "text") for n, line in numbered if line.strip())
        return
    split = split_of(source, split)
    with open_table(source, encoding=encoding, split=split, progress=progress) as (table, _):
        column = choose_text_column(table.columns, source=str(source), text=text_column)

        def counted() -> Iterator[tuple[Row, str]]:
            for row in table.rows([column]):
                progress.rows += 1
                yield row, column

        yield counted()
