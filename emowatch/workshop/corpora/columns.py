"""Which column holds the text and which the label. Looks at names only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emowatch.errors import CorpusError
from emowatch.text import clean_line

SHOWN = 20
"""Names of columns in an error, at most."""

TEXT_COLUMNS = (
    "text",
    "sentence",
    "content",
    "comment",
    "message",
    "utterance",
    "hidden_emo_text",
)
LABEL_COLUMNS = ("label", "labels", "emotion", "emotions", "sentiment")
BUILT_GROUPS = ("group", "parent")
"""Columns of files that `emowatch data` wrote; the first that is there says what stays together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnChoice:
    """The columns to read."""

    text: str
    label: str
    group: str | None

    def names(self) -> list[str]:
        """Return each column once."""
        return list(dict.fromkeys(n for n in (self.text, self.label, self.group) if n is not None))


def choose_columns(
    columns: Sequence[str], *, source: str, text: str | None, label: str | None, group: str | None
) -> ColumnChoice:
    """Return the columns named, guessing those of text and label that are ``None``.

    Raises CorpusError, with all the columns, when a named one is missing or a guess has not
    exactly one candidate.
    """
    listed = _listed(columns, source)
    label = _choose(columns, label, LABEL_COLUMNS, "label", listed)
    text = _choose([c for c in columns if c != label], text, TEXT_COLUMNS, "text", listed)
    if group is None and "provenance" in columns:
        # Rewritten texts keep the facts of their parent, which must not straddle a split.
        group = next((name for name in BUILT_GROUPS if name in columns), None)
    if group is not None:
        group = _choose(columns, group, (), "group", listed)
    return ColumnChoice(text=text, label=label, group=group)


def choose_text_column(columns: Sequence[str], *, source: str, text: str | None) -> str:
    """Return the column named, or guess it, where no label is needed.

    Raises CorpusError as `choose_columns`.
    """
    return _choose(columns, text, TEXT_COLUMNS, "text", _listed(columns, source))


def _listed(columns: Sequence[str], source: str) -> str:
    more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    names = ", ".join(clean_line(name, 40) for name in columns[:SHOWN]) or "(none)"
    return f"The columns of {source} are: {names}{more}."


def _choose(
    columns: Sequence[str], named: str | None, usual: Sequence[str], kind: str, listed: str
) -> str:
    option = f"--{kind}-column"
    if named is not None:
        found = columns.count(named)
        if found == 1:
            return named
        problem = "There is no column" if found == 0 else "There are several columns"
        raise CorpusError(
            f"{problem} {named!r} to take the {kind} from. {listed} Name one of them with {option}."
        )
    candidates = [name for name in columns if name.casefold() in usual]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        problem = f"Several columns could hold the {kind}: {', '.join(candidates)}."
    else:
        problem = f"No column is called as a {kind} usually is ({', '.join(usual)})."
    raise CorpusError(f"{problem} {listed} Name the right one with {option}.")
