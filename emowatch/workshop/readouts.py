"""Turn labelled texts into passages: which tokens the model reads, and where its states count.

Knows tokenizers and templates; runs no model.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from emowatch.bank.card import Readout
from emowatch.errors import CorpusError, UsageError

LeftOut = Literal[
    "longer than the context", "too short for the positions", "without tokens", "empty reply"
]
"""Why an example makes no passage; these words stand on cards.

``too short for the positions``: a position lies before the first token of the text, where the
model's states are the same for every text.
"""


@dataclass(frozen=True, slots=True)
class Passage:
    """One token sequence and the places in it whose states are wanted."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    offsets: tuple[int, ...]
    """For each place the offset it counts as; 0 outside replies."""
    pooled: bool = False
    """Whether the states of all places are averaged into one."""

    @property
    def rows(self) -> int:
        """How many states it yields."""
        return 1 if self.pooled else len(self.places)


def prompt_ids(
    tokenizer: Any,
    text: str,
    *,
    template: bool,
    system: str | None = None,
    thinks: bool | None = None,
) -> list[int]:
    """Tokenise one user message, through the chat template or as plain text.

    Args:
        tokenizer: the model's.
        text: what the user says.
        template: whether it goes through the chat template.
        system: the system prompt.
        thinks: told to the template as ``enable_thinking``, unless it is `None`.

    Raises:
        UsageError: if the template is asked for and there is none.
    """
    if not template:
        ids: list[int] = tokenizer(text)["input_ids"]
        return ids
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError(
            "Could not use the chat template: this tokenizer has none. Leave it out with "
            "--no-template."
        )
    messages = [{"role": "user", "content": text}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    told = {} if thinks is None else {"enable_thinking": thinks}
    rendered = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, **told
    )
    ids = list(rendered["input_ids"])
    return ids


def prompt_passages(
    tokenizer: Any,
    texts: Sequence[str],
    readout: Readout,
    *,
    template: bool,
    positions: Sequence[int] = (-1,),
    context: int | None = None,
) -> list[Passage | LeftOut]:
    """Make a passage for each text, or say why it makes none.

    Args:
        tokenizer: the model's.
        texts: labelled texts.
        readout: ``last_prompt_token``, ``positions`` or ``mean``.
        template: whether texts go through the chat template.
        positions: places counted from the end, as -5 to -1, for ``positions``.
        context: longest sequence the model takes.
    """
    passages: list[Passage | LeftOut] = []
    wanted = positions if readout == "positions" else (-1,)
    first = text_start(tokenizer, template=template)
    for text in texts:
        ids = prompt_ids(tokenizer, text, template=template)
        if not ids:
            passages.append("without tokens")
        elif context is not None and len(ids) > context:
            passages.append("longer than the context")
        elif readout == "mean":
            places = tuple(range(len(ids)))
            passages.append(Passage(tuple(ids), places, (0,) * len(places), pooled=True))
        elif len(ids) + min(wanted) < first:
            passages.append("too short for the positions")
        else:
            places = tuple(len(ids) + position for position in wanted)
            passages.append(Passage(tuple(ids), places, (0,) * len(places)))
    return passages


def text_start(tokenizer: Any, *, template: bool) -> int:
    """Count the tokens before the text in every prompt, such as those of the template."""
    one, other = (prompt_ids(tokenizer, text, template=template) for text in ("0", "x"))
    if one == other:  # neither character is known
        return 0
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def reply_passage(
    prompt: Sequence[int], reply: Sequence[int], *, at_most: int, seed: int
) -> Passage:
    """Join a prompt and a reply; states at offset 0 and at up to `at_most` - 1 random others.

    Offset ``k`` is the state that reply token ``k`` is sampled from, so it lies one place
    before that token.
    """
    if not reply:
        raise CorpusError("A reply without tokens has no states.")
    others = range(1, len(reply))
    chosen = random.Random(seed).sample(others, min(len(others), at_most - 1))
    offsets = (0, *sorted(chosen))
    first = len(prompt) - 1
    ids = (*prompt, *reply[: offsets[-1]])
    return Passage(ids, tuple(first + k for k in offsets), offsets)
