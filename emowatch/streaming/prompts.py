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
from emowatch.watching import Watch

Message = Mapping[str, str]
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
        speaker: Any = watcher.model
        device = speaker.get_input_embeddings().weight.device
        watcher.seed_turn(self.seed)
        speaker.generate(
            **{name: tensor.to(device) for name, tensor in self.inputs.items()},
            max_new_tokens=self.limit,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([*self.criteria, stop]),
            **self.options,
        )


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
        UsageError: for a message without text, or a dialogue the template refuses.
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
    """Render a dialogue with the chat template, or a plain text where there is none.

    Raises:
        UsageError: for a message without text, or a dialogue the template refuses.
    """
    dialogue = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    if not isinstance(dialogue, Sequence) or not all(isinstance(m, Mapping) for m in dialogue):
        raise UsageError(
            f"Could not answer a {type(messages).__name__}: pass the text of one message, or a "
            'list of {"role": …, "content": …}.'
        )
    if not dialogue:
        raise UsageError("Could not answer an empty dialogue: pass one message at least.")
    for message in dialogue:
        if not message.get("content", "").strip():
            raise UsageError(f"The {message.get('role', 'user')} message is empty: nothing to say.")
    if not getattr(tokenizer, "chat_template", None):
        text = "\n".join(message["content"] for message in dialogue)
        encoded = tokenizer(text, return_tensors="pt")
    else:
        import jinja2  # only to name its error

        try:
            encoded = tokenizer.apply_chat_template(
                list(dialogue), add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        except jinja2.TemplateError as error:
            raise UsageError(f"The model's chat template refused the dialogue: {error}") from error
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
