"""Write dialogues for a model to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from emowatch.errors import UsageError
from emowatch.model.loading import LoadedModel
from emowatch.text import clean_line

Dialogue = Sequence[Mapping[str, str]]
"""Messages with ``role`` and ``content``."""


def encode(loaded: LoadedModel, dialogue: Dialogue, *, thinks: bool) -> list[int]:
    """Write a dialogue with the chat template, up to where the reply begins.

    Without a template the one user message is taken as it is.

    Args:
        loaded: the model.
        dialogue: its messages.
        thinks: told to the template as ``enable_thinking``; most know no such thing.

    Raises:
        UsageError: if the template refuses the dialogue, or there is none to tell of a system
            prompt.
    """
    tokenizer, name = loaded.tokenizer, clean_line(loaded.name)
    if not tokenizer.chat_template:
        if len(dialogue) > 1:
            raise UsageError(
                f"Could not give {name!r} a system prompt: its tokenizer has no chat template. "
                "Name an instruction-tuned model with --model."
            )
        ids: list[int] = tokenizer(dialogue[0]["content"])["input_ids"]
        return ids
    try:
        rendered: Any = tokenizer.apply_chat_template(
            [dict(message) for message in dialogue],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            enable_thinking=thinks,
        )
    except (TemplateError, TypeError) as error:  # TypeError: text joined to None
        roles = " and ".join(message["role"] for message in dialogue)
        raise UsageError(
            f"Could not write a dialogue of {roles} for {name!r}: its chat template refuses it "
            f"({clean_line(str(error), 120)}). Name another model with --model."
        ) from error
    return list(rendered["input_ids"])
