"""The rows of a corpus that is being built: where each came from, and what it was made of.

Files of other people are read too: their rows are natural, and their own parents.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from emowatch.errors import CorpusError, EmowatchError, UsageError
from emowatch.labels import check_labels
from emowatch.text import clean_line
from emowatch.workshop.corpora import read_corpus
from emowatch.workshop.corpora.reading import open_table
from emowatch.workshop.corpora.tables import Row, shorten
from emowatch.workshop.corpora.usable import Unusable, usable_text

Provenance = Literal["natural", "rewritten", "synthetic"]
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)
BUILT_COLUMNS = frozenset(("id", "text", "label", "provenance", "parent"))
"""A file with all of these was written here."""
_KINDS = ("text", "label", "group")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRow:
    """One labelled text with its origin."""

    id: str
    text: str
    label: str
    provenance: Provenance
    parent: str
    """The natural text whose facts it holds; of a natural text its own id; of a synthetic one the
    first of its examples."""
    intensity: int | None = None
    """That was asked for, 1 to 5."""
    examples: tuple[str, ...] = ()
    """Ids of the texts that a synthetic one was shown."""
    source: str | None = None
    """Name of the file that its natural text came from."""
    model: str | None = None
    """That labelled or wrote it."""
    template: str | None = None
    """Of the prompt that labelled or wrote it, with the beginning of its hash."""
    judge: str | None = None
    """The model that found a written text to express its label."""
    group: str | None = None
    """Rows of one group must stay on one side of a split; set by `split_rows`."""

    def as_object(self) -> dict[str, Any]:
        """Give it as a JSON object, without what is not known."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if k == "examples" else v for k, v in values.items() if v}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """One text that is left out of a corpus, and why."""

    id: str
    text: str
    reason: str
    detail: str = ""
    label: str | None = None

    def as_object(self) -> dict[str, Any]:
        """Give it as a JSON object, without what is not known."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name))}


@dataclass(frozen=True, slots=True)
class RowFile:
    """The rows of one file, and how many of it cannot be used."""

    rows: tuple[CorpusRow, ...]
    labels: tuple[str, ...]
    put_aside: tuple[Dropped, ...]
    """Rows that cannot be used, each named by its file and number."""
    encoding_hint: str = ""
    """What those with undecodable bytes could be read with."""

    @property
    def aside(self) -> dict[str, int]:
        """Count the rows put aside, by reason."""
        return dict(Counter(one.reason for one in self.put_aside).most_common())


def text_id(text: str, *more: object) -> str:
    """Name a text by what it says, and by what it was made of."""
    told = json.dumps([text, *more])
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def read_rows(source: str | Path, **reading: Any) -> RowFile:
    """Read a labelled file, whoever wrote it.

    Args:
        source: a file as `read_corpus` takes it, or one that was written here.
        **reading: arguments of `read_corpus`. A file that was written here keeps what is known
            of its rows, unless columns are named.

    Raises:
        CorpusError: if it cannot be read, or no row of it can be used.
    """
    encoding = reading.get("encoding", "utf-8")
    path = Path(source)
    if path.suffix == ".jsonl" and path.is_file() and not path.stat().st_size:
        return RowFile((), (), ())  # a step that kept nothing
    if path.is_file() and not any(reading.get(f"{kind}_column") for kind in _KINDS):
        with open_table(path, encoding=encoding) as (table, _):
            if set(table.columns) >= BUILT_COLUMNS:
                return _built(str(source), table.rows(table.columns), reading.get("limit"))
    corpus = read_corpus(source, **{"min_per_class": 0, **reading})
    named = reading.get("group_column") is not None
    aside = tuple(
        _aside(corpus.source, row.row, row.reason, row.detail) for row in corpus.quarantined
    )
    rows = []
    for example in corpus.examples:
        name = text_id(example.text)
        rows.append(
            CorpusRow(
                id=name,
                text=example.text,
                label=corpus.labels[example.label],
                provenance="natural",
                parent=example.group if named else name,
                source=path.name if path.is_file() else corpus.source,
            )
        )
    return RowFile(tuple(rows), corpus.labels, aside, corpus.encoding_hint)


def _aside(source: str, number: int, reason: str, detail: str) -> Dropped:
    name = f"{Path(source).name}:{number}"
    return Dropped(id=name, text="", reason=reason, detail=clean_line(detail, 80))


def _built(source: str, table: Iterable[Row], limit: int | None) -> RowFile:
    rows, aside = [], list[Dropped]()
    for row in table:
        try:
            rows.append(_row(row))
        except Unusable as problem:
            aside.append(_aside(source, row.number, problem.reason, problem.detail))
    if not rows:
        first = "".join(
            f"row {one.id.rpartition(':')[2]}: {one.reason} ({one.detail})" for one in aside[:1]
        )
        raise CorpusError(
            f"Could not use {clean_line(source)} because none of its rows is usable. "
            f"{clean_line(first) or 'It has none.'}"
        )
    if limit is not None and len(rows) > limit:
        kept = sorted(range(len(rows)), key=lambda n: text_id(rows[n].text, "limit"))[:limit]
        rows = [rows[n] for n in sorted(kept)]
    return RowFile(tuple(rows), tuple(sorted({row.label for row in rows})), tuple(aside))


def _row(row: Row) -> CorpusRow:
    if row.problem is not None:
        raise Unusable(row.problem_reason, row.problem)
    given = row.values
    names = {name: _name(given.get(name), name) for name in ("id", "label", "parent")}
    provenance = given.get("provenance")
    if provenance not in PROVENANCES:
        raise Unusable("malformed row", f"provenance is {shorten(provenance)}")
    try:
        check_labels([names["label"]])
    except ValueError as error:
        raise Unusable("unknown label", str(error)) from error
    intensity, examples = given.get("intensity"), given.get("examples")
    known = {name: given.get(name) for name in ("source", "model", "template", "judge", "group")}
    return CorpusRow(
        text=usable_text(given.get("text")),
        provenance=provenance,
        intensity=_whole(intensity),
        examples=_several(examples),
        **names,
        **{k: clean_line(v, 200) for k, v in known.items() if isinstance(v, str)},
    )


def _whole(value: object) -> int | None:
    """Read a number that a table may have as text or with a point."""
    if value is None or value != value or value == "":
        return None
    try:
        number = float(str(value))
        if number == int(number):
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise Unusable("malformed row", f"intensity is {shorten(value)}")


def _several(value: object) -> tuple[str, ...]:
    """Read a list of ids, which a table without lists has as JSON: a split hangs on them."""
    if value is None or value != value or value == "":
        return ()
    try:
        found = json.loads(value) if isinstance(value, str) else list(value)  # type: ignore[call-overload]  # else it is no list
    except (ValueError, TypeError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Unusable("malformed row", f"examples are {shorten(value)}")
    return tuple(found)


def _name(value: object, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unusable("no label" if column == "label" else "malformed row", f"no {column}")
    return value


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Raises:
        UsageError: saying why.
    """
    shown = clean_line(str(out))
    if out.suffix != ".jsonl":
        raise UsageError(f"Could not write {shown!r}: rows are JSON lines. Name a .jsonl file.")
    if out.is_dir() or not out.absolute().parent.is_dir():
        what = "it is a folder" if out.is_dir() else "there is no such folder"
        raise UsageError(f"Could not write {shown!r}: {what}. Name a file in one that exists.")
    if not os.access(out.absolute().parent, os.W_OK):
        raise UsageError(f"Could not write {shown!r}: this user may not write to its folder.")
    if out.exists() and not overwrite:
        raise UsageError(
            f"Could not write {shown!r}: it is there already. Name another file, or pass "
            "--overwrite."
        )


def quarantine_beside(out: Path) -> Path:
    """Name the file of what is left out of a corpus."""
    return out.with_name(f"{out.stem}.quarantine.jsonl")


def write_rows(out: Path, rows: Sequence[CorpusRow | Dropped]) -> None:
    """Write rows as JSON lines, whole or not at all.

    Raises:
        EmowatchError: if the disk is full, or the file cannot be written.
    """
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row.as_object(), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, out)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise EmowatchError(
            f"Could not write {clean_line(str(out))!r}: {error.strerror}. Make room, or name "
            "another file; what a model has answered is kept."
        ) from error
