"""Parquet files as tables, through the extra ``data``.

pyarrow is imported when a table is opened (0.2 s): most corpora do not need it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emowatch.errors import CorpusError
from emowatch.workshop.corpora.files import sha256_of
from emowatch.workshop.corpora.tables import Row, Table, import_extra


@contextmanager
def open_parquet_table(path: Path) -> Iterator[Table]:
    """Open a Parquet file as a table that reads only the columns asked for, batch by batch."""
    parquet = import_extra("pyarrow.parquet", "Reading Parquet")
    arrow = import_extra("pyarrow", "Reading Parquet")
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow

            def rows(wanted: Sequence[str]) -> Iterator[Row]:
                number = 0
                for batch in file.iter_batches(columns=list(wanted)):
                    columns = [batch.column(name) for name in wanted]
                    for index in range(batch.num_rows):
                        number += 1
                        yield _arrow_row(number, index, wanted, columns)

            features = _features_in_metadata(schema.metadata or {})
            yield Table(
                columns=tuple(schema.names),
                rows=rows,
                fingerprint=lambda: sha256_of(path),
                class_names=lambda column: class_names_of(features.get(column)),
            )
    except arrow.ArrowException as error:
        raise CorpusError(
            f"Could not read {path} because it is no intact Parquet file ({error}). "
            "Fetch or write it again."
        ) from error


def _arrow_row(number: int, index: int, names: Sequence[str], columns: Sequence[Any]) -> Row:
    try:
        return Row(
            number,
            {name: column[index].as_py() for name, column in zip(names, columns, strict=True)},
        )
    except UnicodeDecodeError as error:
        return Row(number, {}, str(error)[:80], "undecodable bytes")


def _features_in_metadata(metadata: Mapping[bytes, bytes]) -> dict[str, object]:
    """Return the features that ``datasets`` writes into the files it makes, if there are any."""
    try:
        return dict(json.loads(metadata[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}


def class_names_of(feature: object) -> tuple[str, ...] | None:
    """Return the names of a ClassLabel feature, or of a list of them, object or JSON alike."""
    if isinstance(feature, list) and len(feature) == 1:
        return class_names_of(feature[0])
    names = _part(feature, "names")
    if isinstance(names, list | tuple):
        return tuple(str(name) for name in names)
    inner = _part(feature, "feature")
    return None if inner is None else class_names_of(inner)


def _part(feature: object, name: str) -> object:
    if isinstance(feature, Mapping):
        return feature.get(name)
    return getattr(feature, name, None)
