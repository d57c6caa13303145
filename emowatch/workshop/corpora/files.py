"""Local files: finding them, opening them, and saying what is wrong with them.

The bytes are hashed as they are read, so that a large file is read once. What stands in the
rows is the business of the formats.
"""

from __future__ import annotations

import codecs
import difflib
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emowatch.errors import CorpusError

if TYPE_CHECKING:  # the type of a buffer exists for type checkers only before Python 3.12
    from _typeshed import WriteableBuffer

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
FORMATS = ".csv, .tsv, .jsonl, .json (each also as .gz) and .parquet"
_CHUNK_BYTES = 1 << 20
_LISTED_FILES = 10
_PEEKED = 64


def data_suffix(path: Path) -> str | None:
    """Return the format of a file by its name, without ``.gz``; ``None`` if it is none of ours."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return ".parquet"
    name = name.removesuffix(".gz")
    return next((suffix for suffix in TEXT_SUFFIXES if name.endswith(suffix)), None)


def check_file(path: Path) -> str:
    """Return the suffix of an existing data file.

    Raises CorpusError when there is no such file, when it is a directory, or when its format is
    unknown.
    """
    if path.is_dir():
        raise CorpusError(_directory_message(path))
    if not path.exists():
        raise CorpusError(_missing_message(path))
    suffix = data_suffix(path)
    if suffix is None:
        raise CorpusError(
            f"Could not read {path} because its name does not end in a known format. "
            f"Known formats: {FORMATS}."
        )
    if path.stat().st_size == 0:
        raise empty(path)
    return suffix


def empty(path: Path) -> CorpusError:
    """Say that there is nothing in the file."""
    return CorpusError(
        f"Could not read {path} because it is empty. Give a file with one text and one label "
        "in each row."
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(slots=True)
class Progress:
    """How many rows a reader has delivered; errors quote it."""

    rows: int = 0


@contextmanager
def file_errors(path: Path, progress: Progress) -> Iterator[None]:
    """Turn what the system says about a file into a CorpusError."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(
            f"Could not read {path} to its end because the compressed data is cut short or "
            f"damaged ({error}) after {progress.rows:,} rows. Fetch or compress the file again."
        ) from error
    except PermissionError as error:
        raise CorpusError(
            f"Could not read {path} because this user may not read it. "
            "Change its permissions or give a copy."
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise CorpusError(
            f"Could not read {path} because the system reported: {reason}. "
            "Check the path and the disk, or give a copy of the file."
        ) from error
    except UnicodeError as error:
        raise CorpusError(
            f"Could not decode {path} after {progress.rows:,} rows ({error}). "
            "Name the file's encoding with --encoding."
        ) from error


class _HashingReader(io.RawIOBase):
    """Pass a file's bytes on and hash them on the way."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        count: int | None = self._stream.readinto(buffer)
        self._digest.update(memoryview(buffer)[: count or 0])
        return count

    def finish(self) -> str:
        """Read what is left and return the hash of the whole."""
        scratch = bytearray(_CHUNK_BYTES)
        while self.readinto(scratch):
            pass
        return self._digest.hexdigest()


@dataclass(frozen=True, slots=True)
class TextSource:
    """An open text file and its hash."""

    path: Path
    lines: io.TextIOWrapper
    _raw: _HashingReader

    def sha256(self) -> str:
        """Return the hash of the stored bytes; the rows must have been read before."""
        return self._raw.finish()


@contextmanager
def open_text(path: Path, *, encoding: str, newline: str) -> Iterator[TextSource]:
    """Open a text file, compressed or not, without ever failing on undecodable bytes.

    Such bytes become lone surrogates (``surrogateescape``), which the reader looks for in the
    columns it uses. A UTF-8 byte-order mark is dropped.
    """
    encoding = _checked_encoding(encoding)
    with ExitStack() as stack:
        raw = _HashingReader(stack.enter_context(path.open("rb", buffering=0)))
        stream: io.BufferedReader | gzip.GzipFile = io.BufferedReader(raw, _CHUNK_BYTES)
        if path.name.lower().endswith(".gz"):
            stream = stack.enter_context(gzip.GzipFile(fileobj=stream, mode="rb"))
        if encoding == "utf-8-sig" and stream.peek(2)[:2] in (
            codecs.BOM_UTF16_LE,
            codecs.BOM_UTF16_BE,
        ):
            raise CorpusError(
                f"Could not read {path} as UTF-8 because it starts like a UTF-16 file. "
                "Pass --encoding utf-16, or save it as UTF-8."
            )
        head = stream.peek(_PEEKED)[:_PEEKED]
        if encoding == "utf-8-sig" and head.count(0) > len(head) // 4:
            raise CorpusError(
                f"Could not read {path} as UTF-8 because it begins with many zero bytes, as UTF-16 "
                "without a mark does. Pass --encoding utf-16-le or utf-16-be, or save it as UTF-8."
            )
        lines = io.TextIOWrapper(
            stream,
            encoding=encoding,
            errors="surrogateescape",
            newline=newline,
        )
        yield TextSource(path, stack.enter_context(lines), raw)


def _checked_encoding(encoding: str) -> str:
    try:
        info = codecs.lookup(encoding)
        "".encode(encoding)  # refuses codecs such as zlib that do not turn text into bytes
    except LookupError as error:
        raise CorpusError(
            f"Python knows no text encoding {encoding!r}. Examples: utf-8, latin-1, cp1252, utf-16."
        ) from error
    return "utf-8-sig" if info.name == "utf-8" else info.name


def _directory_message(path: Path) -> str:
    entries = [*path.glob("*"), *path.glob("*/*")]
    found = [str(e.relative_to(path)) for e in sorted(entries) if data_suffix(e) and e.is_file()]
    if not found:
        return (
            f"Could not read {path} because it is a directory, with no data file in it. "
            f"Known formats: {FORMATS}."
        )
    more = f" and {len(found) - _LISTED_FILES} more" if len(found) > _LISTED_FILES else ""
    return (
        f"Could not read {path} because it is a directory. "
        f"Name one of the files in it: {', '.join(found[:_LISTED_FILES])}{more}."
    )


def _missing_message(path: Path) -> str:
    message = f"Could not read {path} because there is no such file."
    if not path.parent.is_dir():
        return f"{message} Nor is there a folder {path.parent}: check the path."
    names = [entry.name for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=3)
    if near:
        return f"{message} Similar names beside it: {', '.join(near)}."
    return f"{message} Check the path; {path.parent.resolve()} holds {len(names)} other entries."
