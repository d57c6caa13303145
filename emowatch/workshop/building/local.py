"""A model on this machine as an answerer: prompts in batches, each answered greedily."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from emowatch.errors import ModelError
from emowatch.model.blocks import text_config
from emowatch.model.loading import LoadedModel
from emowatch.text import clean_line
from emowatch.workshop.building.answering import Answer, Messages, Outcome, RefusedPromptError
from emowatch.workshop.dialogues import encode
from emowatch.workshop.extraction import model_key
from emowatch.workshop.generating import BatchGenerator, generation_settings

WINDOW = 16
"""Batches that are sorted by length together, so that little of them is padding."""


class LocalModel:
    """An `Answerer` on this machine."""

    def __init__(self, loaded: LoadedModel, *, max_tokens: int, batch_rows: int = 16) -> None:
        """Take a model.

        Args:
            loaded: the model and its tokenizer.
            max_tokens: of one answer.
            batch_rows: prompts that are answered at a time.

        Raises:
            ModelError: if it has no chat template.
        """
        if not loaded.tokenizer.chat_template:
            raise ModelError(
                f"Could not ask {clean_line(loaded.name)!r}: it has no chat template. Name a model "
                "that was taught to answer."
            )
        self._loaded = loaded
        self._max_tokens, self._batch_rows = max_tokens, batch_rows
        self._context = getattr(text_config(loaded.model), "max_position_embeddings", None)
        self._answer = BatchGenerator(loaded.model, loaded.tokenizer, sample=False)
        self._settings = {
            "weights": model_key(loaded.model),
            "max_tokens": max_tokens,
            "generation": generation_settings(loaded.model),
        }

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._loaded.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the answers depend on; batches change them by rounding at most."""
        return {"model": self.model, "settings": self._settings}

    def complete(self, messages: Messages) -> Answer:
        """Answer one dialogue.

        Raises:
            RefusedPromptError: if it leaves no room for an answer in the context.
        """
        ((_, outcome),) = self.complete_many([("", messages)])
        if not isinstance(outcome, Answer):
            raise outcome
        return outcome

    def complete_many(
        self, prompts: Iterable[tuple[str, Messages]]
    ) -> Iterator[tuple[str, Outcome]]:
        """Answer many dialogues, those of like length together."""
        source = iter(prompts)
        while window := list(islice(source, self._batch_rows * WINDOW)):
            # A model that can think would do so up to the limit, and say nothing.
            encoded = [(key, encode(self._loaded, said, thinks=False)) for key, said in window]
            encoded.sort(key=lambda prompt: len(prompt[1]))
            fitting = [prompt for prompt in encoded if self._fits(prompt[1])]
            for first in range(0, len(fitting), self._batch_rows):
                yield from self._answered(fitting[first : first + self._batch_rows])
            for key, ids in encoded[len(fitting) :]:
                yield key, self._too_long(len(ids))

    def _fits(self, ids: list[int]) -> bool:
        return self._context is None or len(ids) + self._max_tokens <= self._context

    def _too_long(self, length: int) -> RefusedPromptError:
        return RefusedPromptError(
            f"The prompt has {length} tokens, and with an answer of up to {self._max_tokens} it is "
            f"longer than the model's context of {self._context}. Lower --max-new-tokens, or "
            "name another model."
        )

    def _answered(self, batch: list[tuple[str, list[int]]]) -> Iterator[tuple[str, Outcome]]:
        said = self._answer([ids for _, ids in batch], self._max_tokens)
        for (key, prompt), (tokens, has_ended) in zip(batch, said, strict=True):
            yield (
                key,
                Answer(
                    text=self._loaded.tokenizer.decode(tokens, skip_special_tokens=True),
                    prompt_tokens=len(prompt),
                    completion_tokens=len(tokens),
                    is_cut=not has_ended,
                ),
            )
