"""From what stands in a label column to label names. Does not know rows or files of text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from emowatch.errors import CorpusError

_INTEGER = re.compile(r"\d+")


def normalised(label: str) -> str:
    """Return a label without outer white space, in Unicode's NFC."""
    return unicodedata.normalize("NFC", label).strip()


def label_tokens(value: object, *, whole: Collection[str] = ()) -> list[str]:
    """Return the labels or ids in one cell: a string, a number, a list or a comma list.

    A string that is in ``whole`` is one label even if it contains a comma. Raises TypeError for
    anything else, such as an object.
    """
    if value is None or value != value:  # not equal to itself: NaN, how tables say "missing"
        return []
    if isinstance(value, list | tuple):
        tokens = [token for item in value for token in label_tokens(item, whole=whole)]
    elif isinstance(value, bool):
        tokens = [str(value).lower()]
    elif isinstance(value, int | float):
        tokens = [str(int(value) if float(value).is_integer() else value)]
    elif isinstance(value, str):
        tokens = [normalised(value)] if normalised(value) in whole else _split(value)
    else:
        raise TypeError(type(value).__name__)
    return list(dict.fromkeys(token for token in tokens if token))


def _split(value: str) -> list[str]:
    value = value.strip()
    if value.startswith("[") and value.endswith("]"):  # a list that went through a CSV file
        value = re.sub(r"['\"]", "", value[1:-1])
        if re.fullmatch(r"[\d\s,]*", value):
            value = ",".join(value.replace(",", " ").split())
    return [normalised(part) for part in value.split(",")]


class LabelDecoder:
    """Names for what the cells hold, and the order of the classes.

    ``listed`` are the names the file's ids stand for (``labels.txt``, or the table's own);
    ``asked`` are the labels the caller wants, and the only ones let through.
    """

    def __init__(self, *, listed: Sequence[str] | None, asked: Sequence[str] | None) -> None:
        self.asked = asked
        self._listed = listed
        # Names that are numbers themselves, such as ratings 1 to 5, are no list to index into.
        ids_of = listed if listed is not None else asked
        self._ids_of = None if ids_of is None or any(map(_INTEGER.fullmatch, ids_of)) else ids_of
        self._allowed = None if asked is None else frozenset(asked)
        self.whole = frozenset([*(listed or ()), *(asked or ())])

    def name(self, token: str) -> str | None:
        """Return the label that a cell's token stands for, ``None`` if it stands for none."""
        if self._ids_of is not None and token not in self.whole and _INTEGER.fullmatch(token):
            index = int(token) if len(token) < 10 else len(self._ids_of)
            if index >= len(self._ids_of):
                return None
            token = self._ids_of[index]
        return token if self._allowed is None or token in self._allowed else None

    def order(self, names: Collection[str]) -> tuple[str, ...]:
        """Return the classes in order: as asked, as listed, by number, or by alphabet."""
        if self.asked is not None:
            return tuple(self.asked)
        if self._listed is not None and set(names) <= set(self._listed):
            return tuple(self._listed)
        if all(_INTEGER.fullmatch(name) for name in names):
            return tuple(sorted(names, key=lambda name: (int(name[:4000]), name)))
        return tuple(sorted(names))


def checked_labels(labels: Sequence[str], origin: str) -> tuple[str, ...]:
    """Return the labels normalised. Raises CorpusError when one is blank or there twice."""
    names = tuple(normalised(label) for label in labels)
    if not names:
        raise CorpusError(f"There is no label in {origin}. Give at least two.")
    for position, name in enumerate(names, start=1):
        if not name:
            raise CorpusError(
                f"Label {position} in {origin} is blank, so the ids after it would mean nothing. "
                "Give each label its own name."
            )
        if name in names[: position - 1]:
            raise CorpusError(
                f"The label {name!r} is in {origin} twice. Give each label its own name."
            )
    return names


def labels_beside(path: Path) -> tuple[str, ...] | None:
    """Return the names in the ``labels.txt`` beside a data file, one a line; ``None`` if none."""
    file = path.with_name("labels.txt")
    if not file.is_file():
        return None
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeError) as error:
        raise CorpusError(
            f"Could not read the label names in {file} because: {error}. "
            "It must be UTF-8 with one label in each line."
        ) from error
    return checked_labels(lines, str(file))
