"""Whether a cell holds a text that can be used."""

from __future__ import annotations

from emowatch.text import is_decoded
from emowatch.workshop.corpora.examples import Reason
from emowatch.workshop.corpora.tables import shorten


class Unusable(Exception):
    """A row to put aside; never leaves the reading of a file."""

    def __init__(self, reason: Reason, detail: object) -> None:
        """Take why, and what was found."""
        super().__init__(reason)
        self.reason: Reason = reason
        self.detail = detail if isinstance(detail, str) else shorten(detail)


def usable_text(value: object) -> str:
    """Give the text in a cell as it is.

    Raises:
        Unusable: if there is none, or none that can be seen.
    """
    if value is None or value != value:  # NaN, how tables say "missing"
        raise Unusable("empty text", value)
    if not isinstance(value, str):
        raise Unusable("text not a string", value)
    if not is_decoded(value):
        raise Unusable("undecodable bytes", value)
    if not any(character.isprintable() and not character.isspace() for character in value):
        raise Unusable("empty text", value)
    return value
