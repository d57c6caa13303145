"""What a model is to answer: a dialogue as tokens, checked, and how it is to be answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import StoppingCriteriaList

from emowatch.errors import ContextError, UnsupportedError, UsageError
from emowatch.model.blocks import text_config
from emowatch.streaming.callbacks import StopOnEvent, Streamer, WatchStreamer
from emowatch.text import is_decoded
from emowatch.watching import Watch

Message = Mapping[str, Any]
"""``{"role": …, "content": …}``, and what else the chat template reads, such as ``tool_calls``."""
_NO_STREAM = {
    "num_beams": "which beam wins is known only at its end",
    "num_return_sequences": "these would be several at once",
}
"""Settings of ``generate`` that are refused above 1, and why."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A dialogue that fits into the model's context, and the settings of its reply."""

    inputs: Mapping[str, Tensor]
    limit: int
    """Longest reply in tokens that the context leaves."""
    seed: int | None
    streamer: Streamer | None
    """The caller's own."""
    criteria: Sequence[Any]
    """The caller's own stopping criteria."""
    options: Mapping[str, Any]
    """Handed to ``generate`` unchanged."""

    def speak(self, watcher: Watch, streamer: WatchStreamer, stop: StopOnEvent) -> None:
        """Generate the reply in an open watch; returns when it has ended."""
        speaker: Any = watcher.speaker
        device = speaker.get_input_embeddings().weight.device
        watcher.seed_turn(self.seed)
        speaker.generate(
            **{name: tensor.to(device) for name, tensor in self.inputs.items()},
            max_new_tokens=self.limit,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([*self.criteria, stop]),
            **self.options,
        )


def with_system(messages: str | Sequence[Message], system: str | None) -> str | Sequence[Message]:
    """Put a system prompt in the place of a dialogue's own; `None` leaves that."""
    if system is None:
        return messages
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    rest = said[1:] if said and said[0].get("role") == "system" else said
    return [{"role": "system", "content": system}, *rest]


def make_prompt(
    model: nn.Module,
    tokenizer: Any,
    messages: str | Sequence[Message],
    max_new_tokens: int,
    seed: int | None,
    generate: Mapping[str, Any],
) -> Prompt:
    """Encode a dialogue, check that it leaves room for a reply, and find the caller's streamer.

    Raises:
        UsageError: as `encode_prompt`.
        ContextError: for a dialogue that is longer than the model's context.
        UnsupportedError: for settings of ``generate`` that ask for several replies or for beams.
    """
    _check_one_reply(model, generate)
    inputs = encode_prompt(tokenizer, messages)
    prompt = inputs["input_ids"].shape[1]
    context = (
        getattr(text_config(model), "max_position_embeddings", None) or prompt + max_new_tokens
    )
    if prompt >= context:
        raise ContextError(
            f"The prompt has {prompt} tokens, and this model's context is {context}: nothing is "
            "left for a reply. Shorten the message or start a new chat."
        )
    options = dict(generate)
    return Prompt(
        inputs=inputs,
        limit=min(max_new_tokens, context - prompt),
        seed=seed,
        streamer=options.pop("streamer", None),
        criteria=tuple(options.pop("stopping_criteria", None) or ()),
        options=options,
    )


def _check_one_reply(model: nn.Module, generate: Mapping[str, Any]) -> None:
    """Refuse what is no single reply, told token by token; also where the model's own file asks."""
    places = (generate.get("generation_config"), getattr(model, "generation_config", None))
    for setting, why in _NO_STREAM.items():
        given = [generate.get(setting), *(getattr(place, setting, None) for place in places)]
        asked = next((value for value in given if value is not None), 1)
        if asked != 1:
            raise UnsupportedError(
                f"Could not stream with {setting}={asked}: a stream is one reply, told token by "
                f"token, and {why}. Pass {setting}=1, or call generate inside emowatch.watch, "
                "whose trace holds every reply that is returned."
            )


def encode_prompt(tokenizer: Any, messages: str | Sequence[Message]) -> dict[str, Tensor]:
    """Render a dialogue with the chat template, or take one plain text where there is none.

    Messages are handed to the template as they are, tool calls with them.

    Raises:
        UsageError: without a tokenizer, for a message that has neither text nor tool calls, for
            content that is no text, for a dialogue the template refuses, and where there is no
            template for anything but one user message.
    """
    if tokenizer is None:
        raise UsageError(
            "Could not stream without a tokenizer (tokenizer=None): a stream encodes the messages "
            "and decodes the reply. Pass the model's own."
        )
    dialogue = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    _check_dialogue(dialogue)
    if getattr(tokenizer, "chat_template", None):
        encoded = _render(tokenizer, dialogue)
    else:
        encoded = tokenizer(_only_text(dialogue), return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def _check_dialogue(dialogue: Any) -> None:
    """Refuse what is no list of messages that say or call something."""
    if not isinstance(dialogue, Sequence) or not all(isinstance(m, Mapping) for m in dialogue):
        raise UsageError(
            f"Could not answer a {type(dialogue).__name__}: pass the text of one message, or a "
            'list of {"role": …, "content": …}.'
        )
    if not dialogue:
        raise UsageError("Could not answer an empty dialogue: pass one message at least.")
    for message in dialogue:
        role, content = message.get("role", "user"), message.get("content")
        if not isinstance(content, str | None):
            raise UsageError(
                f"The content of the {role} message is a {type(content).__name__}, not text: "
                f"{content!r:.80}. Pass its text as one string."
            )
        if not is_decoded(content or ""):
            raise UsageError(
                f"The {role} message holds bytes that are no text: {content!r:.80}. Decode them "
                'with errors="replace" first.'
            )
        if not (content or "").strip() and not message.get("tool_calls"):
            raise UsageError(f"The {role} message is empty: nothing to say.")


def _render(tokenizer: Any, dialogue: Sequence[Message]) -> Mapping[str, Tensor]:
    """Write a dialogue with the chat template, up to where the reply begins."""
    import jinja2  # only to name its error

    try:
        encoded: Mapping[str, Tensor] = tokenizer.apply_chat_template(
            list(dialogue), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    except (jinja2.TemplateError, TypeError) as error:  # such as text joined to None
        raise UsageError(f"The model's chat template refused the dialogue: {error}") from error
    return encoded


def _only_text(dialogue: Sequence[Message]) -> str:
    """Take the text of the one user message that a model without a chat template can be given."""
    roles = [message.get("role", "user") for message in dialogue]
    if roles != ["user"] or dialogue[0].get("tool_calls"):
        raise UsageError(
            f"Could not write a dialogue of {len(roles)} ({', '.join(map(str, roles))}): the "
            "tokenizer has no chat template, so roles and calls cannot be told to the model. Pass "
            "one user message (in a chat, start a new one), or set tokenizer.chat_template."
        )
    return str(dialogue[0]["content"])
