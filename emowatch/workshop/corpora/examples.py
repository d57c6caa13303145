"""The values a corpus is made of. They know nothing of where they were read from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Reason = Literal[
    "empty text",
    "text not a string",
    "no label",
    "several labels",
    "unknown label",
    "label left out",
    "undecodable bytes",
    "malformed row",
]
"""Why a row was put aside; these words are stable.

- ``empty text``: the text is missing, or has no visible character
- ``text not a string``: the text is a number, a list, an object
- ``no label``: the label is missing, null or blank
- ``several labels``: more than one label, and ``several="quarantine"``
- ``unknown label``: a label, or an id, that is not among the labels asked for or listed
- ``label left out``: a label whose texts are left out on purpose, by ``label_map``
- ``undecodable bytes``: a column in use holds bytes that the encoding does not allow
- ``malformed row``: not a row of this format, such as broken JSON or a missing field
"""

REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One text with one label."""

    text: str
    """The text as the file has it."""
    label: int
    """Index into ``Corpus.labels``."""
    group: str
    """Examples of one group must stay on one side of a split."""
    row: int
    """Where it came from: the 1-based line of a text file (of the first line where a row spans
    several), the 1-based record elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One row that was put aside, and why."""

    row: int
    """Numbered as ``Example.row``."""
    reason: Reason
    """One of ``REASONS``."""
    detail: str
    """What was found, at most 80 characters; it may quote the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The usable examples of one source, in file order, and the rows put aside."""

    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    """All class names, those without an example included."""
    quarantined: tuple[Quarantined, ...]
    source: str
    """The path as it was given, or the data-set id with its split."""
    sha256: str
    """Of the file's bytes as stored (compressed, if they are); for a Hub data set, the
    fingerprint that ``datasets`` gives it."""
    text_column: str
    label_column: str
    licence: str | None
    """As the Hub states it; ``None`` where nothing is stated, as in any file."""
    address: str = ""
    """The path or data-set id alone, where it differs from ``source``."""
    translated: Mapping[str, str] = field(default_factory=dict)
    """What each label of the source was taken for, ``-`` for left out; empty without a map."""
    encoding_hint: str = ""
    """What rows with undecodable bytes could be read with, as ``--encoding latin-1``."""

    def __len__(self) -> int:
        """Return the number of usable examples."""
        return len(self.examples)

    @property
    def group_numbers(self) -> list[int]:
        """Number of each example's group, by first appearance."""
        return number_groups(self.examples)

    def counts(self) -> dict[str, int]:
        """Count the examples of each label, in the order of ``labels``, zeros included."""
        found = Counter(example.label for example in self.examples)
        return {label: found[index] for index, label in enumerate(self.labels)}

    def quarantine_counts(self) -> dict[Reason, int]:
        """Count the rows put aside for each reason that occurred, most frequent first."""
        return dict(Counter(row.reason for row in self.quarantined).most_common())


def number_groups(examples: Iterable[Example]) -> list[int]:
    """Number the groups of examples from 0, by first appearance."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(example.group, len(numbers)) for example in examples]
