"""CSV, TSV and JSON as tables. They do not know which column is which.

Lines are numbered from 1. A broken line is a row with a problem; the lines after it are read.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

from emowatch.errors import CorpusError
from emowatch.workshop.corpora.files import TextSource, empty, open_text
from emowatch.workshop.corpora.tables import Row, Table, shorten

GOEMOTIONS_COLUMNS = ("text", "labels", "id")
"""What the three columns of GoEmotions' headerless TSV files are called here."""

_IDS = re.compile(r"\d+(,\d+)*")
_JSON_ROWS_LOOKED_AT = 1000  # JSON has no header: its columns are the keys of the first rows
_LONGEST_FIELD = 1 << 24  # characters; the csv module's own limit of 131,072 refuses long texts


@contextmanager
def open_text_table(path: Path, suffix: str, *, encoding: str) -> Iterator[Table]:
    """Open a file of one of the text formats as a table."""
    newline = "" if suffix == ".csv" else "\n"
    with open_text(path, encoding=encoding, newline=newline) as source:
        if suffix == ".csv":
            with _long_fields_allowed():
                yield _csv_table(source)
        elif suffix == ".tsv":
            yield _tsv_table(source)
        else:
            yield _json_table(source)


@contextmanager
def _long_fields_allowed() -> Iterator[None]:
    # The limit belongs to the whole process; it is put back for others.
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv_table(source: TextSource) -> Table:
    # Strict, because a lenient reader glues the lines after a stray quote into one text.
    reader = csv.reader(source.lines, strict=True)
    header: list[str] = []
    while not any(name.strip() for name in header):
        try:
            header = next(reader)
        except StopIteration:
            raise empty(source.path) from None
        except csv.Error as error:
            raise CorpusError(
                f"Could not read {source.path} because line {reader.line_num}, where the column "
                f"names should be, is not CSV ({error}). Mend it, or save the table again."
            ) from error
    columns = tuple(name.strip() for name in header)

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        while True:
            number = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error) and reader.line_num > number:
                    raise CorpusError(
                        f"Could not read {source.path} because the quote opened in line {number} "
                        f"is never closed, which swallows the {reader.line_num - number:,} lines "
                        "after it. Close it; if quotes are plain characters, save the file as .tsv."
                    ) from error
                yield Row(number, {}, str(error)[:80])
                continue
            if fields:
                yield _row(number, columns, fields)

    return Table(columns=columns, rows=rows, fingerprint=source.sha256)


def _tsv_table(source: TextSource) -> Table:
    # Split by hand: as csv.QUOTE_NONE, and a lone carriage return in a text ends no row.
    records: Iterator[tuple[int, list[str]]] = (
        (number, line.rstrip("\r\n").split("\t"))
        for number, line in enumerate(source.lines, start=1)
        if line.strip()
    )
    first = next(records, None)
    if first is None:
        raise empty(source.path)
    if len(first[1]) == len(GOEMOTIONS_COLUMNS) and _IDS.fullmatch(first[1][1].strip()):
        columns: tuple[str, ...] = GOEMOTIONS_COLUMNS
        records = chain([first], records)
    else:
        columns = tuple(name.strip() for name in first[1])

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for number, fields in records:
            yield _row(number, columns, fields)

    return Table(columns=columns, rows=rows, fingerprint=source.sha256)


def _row(number: int, columns: Sequence[str], fields: Sequence[str]) -> Row:
    if len(fields) != len(columns):
        return Row(number, {}, f"{len(fields)} fields where the header has {len(columns)}")
    return Row(number, dict(zip(columns, fields, strict=True)))


def _json_table(source: TextSource) -> Table:
    lines = ((number, line) for number, line in enumerate(source.lines, start=1) if line.strip())
    first = next(lines, None)
    if first is None:
        raise empty(source.path)
    everything = chain([first], lines)
    if first[1].lstrip().startswith("["):
        parsed = _array_rows(source, "".join(line for _, line in everything), first[0])
    else:
        if first[1].strip() == "{":
            raise CorpusError(
                f"Could not read {source.path} because it holds one JSON object spread over "
                "several lines. Give one array of objects, or one object in each line."
            )
        parsed = (_json_row(number, line) for number, line in everything)
    head = list(islice(parsed, _JSON_ROWS_LOOKED_AT))
    columns = dict.fromkeys(name for row in head for name in row.values)

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        return chain(head, parsed)

    return Table(columns=tuple(columns), rows=rows, fingerprint=source.sha256)


def _json_row(number: int, line: str) -> Row:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        return Row(number, {}, f"not JSON: {reason}")
    return _object_row(number, value)


def _object_row(number: int, value: object) -> Row:
    if not isinstance(value, dict):
        return Row(number, {}, f"not an object: {shorten(value)}"[:80])
    return Row(number, value)


def _array_rows(source: TextSource, text: str, first_line: int) -> Iterator[Row]:
    try:
        values: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"Could not read {source.path} because its JSON array breaks off: {error.msg} in line "
            f"{error.lineno + first_line - 1}. Mend it, or give one object in each line (.jsonl), "
            "where a broken line costs only itself."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            f"Could not read {source.path} because its JSON array cannot be parsed "
            f"({type(error).__name__}). Give one object in each line (.jsonl)."
        ) from error
    assert isinstance(values, list)  # the text starts with a bracket
    return (_object_row(number, value) for number, value in enumerate(values, start=1))
