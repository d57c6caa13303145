"""Data sets of the Hub as tables, through the extra ``data``.

``datasets`` is imported when a table is opened (2 s): most corpora do not need it. No code from
a data set is run.

Whenever anything goes wrong on the way to the Hub, ``datasets`` reads the newest copy in its
cache instead, whichever revision and configuration that is. Here a cached copy is read only if
it is what was asked for.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from emowatch.errors import CorpusError, EmowatchError
from emowatch.workshop.corpora.columnar import class_names_of
from emowatch.workshop.corpora.hub_errors import explain
from emowatch.workshop.corpora.tables import Row, Table, import_extra

_PREFIX = "hf://datasets/"
_ADDRESS = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    # The Hub's own branches are the ones with a slash in their name.
    r"(@(?P<revision>refs/(convert/[\w.-]+|pr/\d+)|[^/@:]+))?"
    r"(:(?P<config>[^/@:]+)|/(?P<path>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TALKERS = (
    "datasets",
    "huggingface_hub.file_download",
    "huggingface_hub.hf_api",
    "huggingface_hub.repocard",
)
"""Loggers that speak while a data set is read. Of the Hub's client it is not all: that it asks
again and again is worth knowing."""
_PURPOSE = "Reading a data set from the Hub"


@dataclass(frozen=True, slots=True)
class HubAddress:
    """What of the Hub is to be read."""

    name: str
    revision: str | None
    config: str | None
    path: str | None


def is_hub_id(source: str) -> bool:
    """Tell whether ``source`` could name a data set on the Hub."""
    return source.startswith(_PREFIX) or _ADDRESS.fullmatch(source) is not None


def parse_address(source: str) -> HubAddress:
    """Take ``[hf://datasets/]namespace/name[@revision][:configuration or /file]`` apart."""
    match = _ADDRESS.fullmatch(source.removeprefix(_PREFIX))
    if match is None:
        raise CorpusError(
            f"{source!r} is no data-set id. Write it as hf://datasets/namespace/name@revision."
        )
    return HubAddress(match["name"], match["revision"], match["config"], match["path"])


def open_hub_table(source: str, *, split: str) -> Table:
    """Open one split of a Hub data set.

    Raises CorpusError when the extra is missing, or when there is no such data set or none that
    can be read, and RetryableError when the Hub does not answer and there is no cached copy.
    """
    address = parse_address(source)
    datasets = import_extra("datasets", _PURPOSE)
    hub = import_extra("huggingface_hub", _PURPOSE)
    splits: list[str] = []
    with _quiet(datasets):
        try:
            builder = _builder(datasets, hub, address, split)
            builder.download_and_prepare()
            splits = list(builder.info.splits or ())
            dataset = builder.as_dataset(split=split)
        except EmowatchError:
            raise
        except Exception as error:  # of the Hub's client, pandas, pyarrow and others
            raise explain(error, source, address.name, split, splits) from error
        licence = _licence(_card(hub, address.name, builder.hash))
    features = dataset.features

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for number, values in enumerate(dataset.select_columns(list(wanted)), start=1):
            yield Row(number, values)

    return Table(
        columns=tuple(dataset.column_names),
        rows=rows,
        fingerprint=lambda: str(getattr(dataset, "_fingerprint", "")),
        class_names=lambda column: class_names_of(features[column]),
        licence=licence,
    )


def _builder(datasets: ModuleType, hub: ModuleType, address: HubAddress, split: str) -> Any:
    """Give what reads the data set: from the Hub, or else the right copy from the cache."""
    # datasets 4 and later run no code from data sets and have no switch to do so.
    options: dict[str, Any] = {"name": address.config, "revision": address.revision}
    if address.path:
        options["data_files"] = {split: address.path}
    builder = None
    try:
        builder = datasets.load_dataset_builder(address.name, **options)
    except ValueError as error:
        if "find cache for" not in str(error) and "in the cache" not in str(error):
            raise
    if builder is not None and builder.name != "cache":
        return builder
    commit = _cached_commit(hub, address)
    wanted = import_extra("datasets.packaged_modules.cache.cache", _PURPOSE).Cache(
        repo_id=address.name,
        dataset_name=address.name.partition("/")[2],
        config_name=address.config or _default_config(_card(hub, address.name, commit)),
        version="0.0.0" if builder is None else str(builder.config.version),
        hash=commit,
    )
    if not commit or address.path or not os.path.isdir(wanted.cache_dir):
        raise _cause(datasets, hub, address, options)
    return wanted


def _cause(
    datasets: ModuleType, hub: ModuleType, address: HubAddress, options: dict[str, Any]
) -> Exception:
    """Find the reason that ``datasets`` has kept to itself, by asking where it has no copy."""
    try:
        hub.HfApi().dataset_info(address.name, revision=address.revision, timeout=10)
        with TemporaryDirectory() as empty:
            datasets.load_dataset_builder(address.name, cache_dir=empty, **options)
    except Exception as error:  # whatever it is, is explained as if it had come at once
        return error
    return ConnectionError("the Hub answers again")


def _cached_commit(hub: ModuleType, address: HubAddress) -> str:
    """Give the commit that a revision was when the Hub was last asked; empty if it never was."""
    revision = address.revision or "main"
    if _COMMIT.fullmatch(revision):
        return revision
    folder = "--".join(("datasets", *address.name.split("/")))
    reference = Path(hub.constants.HF_HUB_CACHE, folder, "refs", *revision.split("/"))
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""


def _card(hub: ModuleType, name: str, commit: str | None) -> dict[str, Any]:
    """Give the metadata of the README, which ``datasets`` has fetched and read before."""
    path = hub.try_to_load_from_cache(name, "README.md", revision=commit, repo_type="dataset")
    if not isinstance(path, str):  # there is none, or nothing was fetched
        return {}
    card: dict[str, Any] = hub.DatasetCard.load(path, ignore_metadata_errors=True).data.to_dict()
    return card


def _licence(card: dict[str, Any]) -> str | None:
    found = card.get("license")
    if isinstance(found, list):
        return ", ".join(map(str, found)) or None
    if found == "other" and card.get("license_name"):
        return str(card["license_name"])
    return str(found) if found else None


def _default_config(card: dict[str, Any]) -> str:
    """Give the configuration that is read where none is named, as ``datasets`` chooses it."""
    configs = card.get("configs") or card.get("dataset_info") or []
    configs = configs if isinstance(configs, list) else [configs]
    marked = [config for config in configs if config.get("default")]
    only = marked or (configs if len(configs) == 1 else [])
    return str(only[0].get("config_name", "default")) if only else "default"


@contextmanager
def _quiet(datasets: ModuleType) -> Iterator[None]:
    """Keep bars and notes of the libraries off the screen; what fails is raised as well."""
    levels = {name: logging.getLogger(name).level for name in _TALKERS}
    bars = "HF_DATASETS_DISABLE_PROGRESS_BARS" not in os.environ
    bars = bars and not datasets.utils.are_progress_bars_disabled()
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if bars:
        datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            datasets.utils.enable_progress_bars()
