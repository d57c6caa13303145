"""Why a data set of the Hub could not be read, and what to do. Asks nobody; imports nothing heavy.

The errors come from five libraries, most of which share no base. Those that matter are known by
name, or by a word in their message where ``datasets`` has changed their kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from emowatch.errors import CorpusError, EmowatchError, RetryableError
from emowatch.text import clean_line

_UNREACHABLE = frozenset(
    (
        "OfflineModeIsEnabled LocalEntryNotFoundError ConnectionError ConnectError ConnectTimeout "
        "ReadError ReadTimeout RemoteProtocolError ProxyError ChunkedEncodingError"
    ).split()
)
_NOT_FOUND = frozenset(("RepositoryNotFoundError", "DatasetNotFoundError"))
_NO_DATA = frozenset(("EmptyDatasetError", "DataFilesNotFoundError"))


def explain(
    error: Exception, source: str, name: str, split: str, splits: Sequence[str]
) -> EmowatchError:
    """Put an error into words. ``splits`` are those there are, as far as is known."""
    chain = _chain(error)
    kinds = {type(step).__name__ for step in chain}
    text = "\n".join(map(str, chain))
    what = f"Could not load the data set {name!r}"
    page = f"https://huggingface.co/datasets/{name}"
    if "scripts are no longer supported" in text:
        return CorpusError(
            f"{what}: it is a Python script, and emowatch runs no code of a data set. If the Hub "
            f"has converted it to Parquet, read that: hf://datasets/{name}@refs/convert/parquet"
        )
    if "GatedRepoError" in kinds or "gated dataset" in text:
        return CorpusError(
            f"{what}: it is gated. Accept its terms at {page}, then log in with: hf auth login"
        )
    if "RevisionNotFoundError" in kinds or re.search(r"Revision '.*' doesn't exist", text):
        return CorpusError(
            f"{what}: it has no such revision as {source!r} names. Those there are stand at "
            f"{page}/commits/main; without a revision the newest is read."
        )
    if kinds & _NOT_FOUND:
        return CorpusError(
            f"{what}: there is no file {source!r} here and no such data set on the Hub. Check the "
            "spelling; private data sets need: hf auth login"
        )
    if kinds & _NO_DATA:
        return CorpusError(
            f"{what}: there is no data file in it, such as CSV, JSON or Parquet. Look at {page}"
        )
    if "Unable to find" in text:
        return CorpusError(
            f"{what}: there is no such file in it as {source!r} names. Those there are stand at "
            f"{page}/tree/main"
        )
    if kinds & _UNREACHABLE or any(map(_is_passing, chain)):
        return _unreachable(what, name, offline="OfflineModeIsEnabled" in f"{kinds} {text}")
    return _unusable(chain, what, name, split, splits)


def _is_passing(error: BaseException) -> bool:
    """Tell whether an error is an answer that says: not now."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status == 429 or status >= 500


def _unreachable(what: str, name: str, *, offline: bool) -> EmowatchError:
    why = "HF_HUB_OFFLINE is set" if offline else "the Hub could not be reached"
    return RetryableError(
        f"{what}: no copy of what was asked for is in the local cache, and {why}. Read it once "
        f"with a connection, or fetch its files with `hf download --repo-type dataset {name}` and "
        "name one of them."
    )


def _unusable(
    chain: Sequence[BaseException], what: str, name: str, split: str, splits: Sequence[str]
) -> EmowatchError:
    """Say what is wrong with a data set that the Hub has given."""
    text = str(chain[0])
    configs = re.findall(r"'([^']+)'", text.partition("[")[2].partition("]")[0])
    if "Config name is missing" in text and configs:
        return CorpusError(
            f"{what}: it has several configurations, {_listed(configs)}, and one must be named, as "
            f"in {name}:{clean_line(configs[0], 80)}"
        )
    if "BuilderConfig" in text and "not found" in text and configs:
        return CorpusError(
            f"{what}: it has no such configuration. There are {_listed(configs)}; name one as in "
            f"{name}:{clean_line(configs[0], 80)}"
        )
    if splits and re.match(r"Unknown split|Bad split", text):
        return CorpusError(
            f"{what}: it has no split {split!r}. There are {_listed(splits)}; name one of them "
            "with --split."
        )
    if "columns" in text and any(type(step).__name__ == "CastError" for step in chain):
        return CorpusError(
            f"{what}: its files have different columns. Name one of them, as in "
            f"hf://datasets/{name}/FILE"
        )
    lines = str(chain[-1]).strip().splitlines()
    reason = f"{type(chain[-1]).__name__}: {lines[0]}" if lines else type(chain[-1]).__name__
    return CorpusError(
        f"{what}, split {split!r}: its files cannot be read ({clean_line(reason, 200)}). Name one "
        f"that can, as in hf://datasets/{name}/FILE, or download and mend them."
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(clean_line(name, 80) for name in names[:8]) + more


def _chain(error: BaseException) -> list[BaseException]:
    """List an error and those it came from, even where a library has hidden them."""
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in found:
        found.append(step)
        step = step.__cause__ or step.__context__
    return found
