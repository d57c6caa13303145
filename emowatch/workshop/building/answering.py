"""What answers prompts, whatever it is: an endpoint on the network or a model on this machine.

Builders of corpora and judges in studies ask an `Answerer`; neither knows which kind it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from emowatch.errors import EmowatchError, RetryableError

Messages: TypeAlias = Sequence[Mapping[str, str]]
"""A dialogue, each message with ``role`` and ``content``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for one prompt, and what it took."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    is_cut: bool = False
    """It ended at the limit of tokens, not where the model would have ended it."""
    is_counted: bool = True
    """The token counts were given; else they are estimates of four characters a token."""


class RefusedPromptError(EmowatchError):
    """One prompt that will never be answered, such as one longer than the context.

    Others may be.
    """

    exit_code = 2


Outcome: TypeAlias = Answer | RefusedPromptError | RetryableError
"""What became of one prompt among many."""


class Answerer(Protocol):
    """Answers prompts, one or many at a time."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its answers depend on: the model and its settings, no address and no key."""
        ...

    @property
    def model(self) -> str:
        """Name of the model, for the rows that it writes."""
        ...

    def complete(self, messages: Messages) -> Answer:
        """Answer one dialogue.

        Raises:
            RefusedPromptError: if this prompt is refused.
            RetryableError: if no answer came.
            UsageError: if none ever will, such as for a wrong key.
        """
        ...

    def complete_many(
        self, prompts: Iterable[tuple[str, Messages]]
    ) -> Iterator[tuple[str, Outcome]]:
        """Answer many dialogues, each named by a key; yield them as they are ready.

        Prompts are taken from the iterable as they are needed. Few are begun and not yet
        yielded at any time, and these are all that a killed process can lose.

        Raises:
            UsageError: as `complete`.
        """
        ...
