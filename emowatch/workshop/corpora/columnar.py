"""Parquet files and Hub data sets as tables, through the extra ``data``.

pyarrow and datasets are imported when a table is opened (0.2 s and 2 s): most corpora need
neither. No code from a data set is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emowatch.errors import CorpusError
from emowatch.workshop.corpora.files import sha256_of
from emowatch.workshop.corpora.tables import Row, Table, import_extra

_HUB_PREFIX = "hf://datasets/"
_HUB_ID = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[^/@]+))?(/(?P<path>.+))?"
)


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
                class_names=lambda column: _class_names(features.get(column)),
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


def _class_names(feature: object) -> tuple[str, ...] | None:
    """Return the names of a ClassLabel feature, or of a list of them, object or JSON alike."""
    if isinstance(feature, list) and len(feature) == 1:
        return _class_names(feature[0])
    names = _part(feature, "names")
    if isinstance(names, list | tuple):
        return tuple(str(name) for name in names)
    inner = _part(feature, "feature")
    return None if inner is None else _class_names(inner)


def _part(feature: object, name: str) -> object:
    if isinstance(feature, Mapping):
        return feature.get(name)
    return getattr(feature, name, None)


def is_hub_id(source: str) -> bool:
    """Tell whether ``source`` could name a data set on the Hub."""
    return source.startswith(_HUB_PREFIX) or _HUB_ID.fullmatch(source) is not None


def open_hub_table(source: str, *, split: str) -> Table:
    """Open one split of a Hub data set: ``ns/name`` or ``hf://datasets/ns/name[@rev][/file]``.

    Raises CorpusError when the extra is missing, or when ``datasets`` cannot load it.
    """
    match = _HUB_ID.fullmatch(source.removeprefix(_HUB_PREFIX))
    if match is None:
        raise CorpusError(
            f"{source!r} is no data-set id. Write it as hf://datasets/namespace/name@revision."
        )
    datasets = import_extra("datasets", "Reading a data set from the Hub")
    options: dict[str, object] = {"split": split, "revision": match["revision"]}
    if match["path"]:
        options["data_files"] = {split: match["path"]}
    try:
        # datasets 4 and later run no code from data sets and have no switch to do so.
        dataset = datasets.load_dataset(match["name"], **options)
    except (OSError, ValueError, RuntimeError) as error:
        neither = "" if source.startswith(_HUB_PREFIX) else f" Nor is there a file {source} here."
        raise CorpusError(
            f"Could not load the data set {match['name']!r}, split {split!r}, because: "
            f"{_first_line(error)}{neither} Check the id, the split and the connection, or give a "
            "local file."
        ) from error
    features = dataset.features

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for number, values in enumerate(dataset.select_columns(list(wanted)), start=1):
            yield Row(number, values)

    return Table(
        columns=tuple(dataset.column_names),
        rows=rows,
        fingerprint=lambda: str(getattr(dataset, "_fingerprint", "")),
        class_names=lambda column: _class_names(features[column]),
        licence=dataset.info.license or None,
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
