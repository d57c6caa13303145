"""Rows and answerers that several tests use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from emowatch.errors import RetryableError
from emowatch.workshop.building import Answer
from emowatch.workshop.building.answering import Messages, Outcome
from emowatch.workshop.building.rows import CorpusRow, text_id
from tests.workshop.building.protocol_server import WORDS

FACTS = ("the bus came at nine", "we met at the old bridge", "he sold his blue car", "it rained")


def natural(text: str, label: str, **more: Any) -> CorpusRow:
    """Make a natural row."""
    name = text_id(text)
    known: dict[str, Any] = {"id": name, "parent": name, "provenance": "natural"}
    return CorpusRow(**{**known, "text": text, "label": label, **more})


def some_rows(per_label: int = 8, labels: Iterable[str] = ("neutral", *WORDS)) -> list[CorpusRow]:
    """Make natural rows whose words tell their labels."""
    return [
        natural(f"I am {WORDS.get(label, 'here')} as {FACTS[n % len(FACTS)]} {n}", label)
        for label in labels
        for n in range(per_label)
    ]


def silent(step: str, done: int, total: int) -> None:
    """Report nothing."""


def texts(rows: Sequence[CorpusRow]) -> list[str]:
    """Give the texts alone."""
    return [row.text for row in rows]


class Down:
    """An answerer whose server is down; nothing that is in the ledger is asked of it."""

    model = "tiny"

    def __init__(self, identity: Mapping[str, Any]) -> None:
        """Take whose answers it would give."""
        self.identity = identity
        self.asked = 0

    def complete(self, messages: Messages) -> Answer:
        """Fail."""
        raise RetryableError("down")

    def complete_many(
        self, prompts: Iterable[tuple[str, Messages]]
    ) -> Iterator[tuple[str, Outcome]]:
        """Fail for each."""
        for key, _ in prompts:
            self.asked += 1
            yield key, RetryableError("down")
