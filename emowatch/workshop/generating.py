"""Let a model go on with texts, in batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn


class BatchGenerator:
    """Lets a model go on with texts of any length, one batch at a time."""

    def __init__(self, model: nn.Module, tokenizer: Any, *, sample: bool) -> None:
        """Take a model that generates.

        Args:
            model: the model.
            tokenizer: its tokenizer, which pads.
            sample: whether tokens are drawn, as the model's own settings say; else the likeliest.
        """
        self._model, self._sample = model, sample
        self._ends, self._pad = end_tokens(model, tokenizer), tokenizer.pad_token_id
        self._device = next(model.parameters()).device

    def __call__(
        self, texts: Sequence[Sequence[int]], most: int
    ) -> Iterator[tuple[list[int], bool]]:
        """Give for each text what follows, of at most `most` tokens, and whether it ended there."""
        longest = max(map(len, texts))
        ids = torch.full((len(texts), longest), self._pad)  # padded on the left
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, longest - len(text) :] = torch.tensor(text)
            mask[row, longest - len(text) :] = 1
        output = self._model.generate(  # type: ignore[operator]
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            max_new_tokens=most,
            do_sample=self._sample,
            pad_token_id=self._pad,
        )
        for row in output[:, longest:].tolist():
            tokens = list(itertools.takewhile(lambda token: token not in self._ends, row))
            yield tokens, len(tokens) < len(row)


def generation_settings(model: Any) -> dict[str, str]:
    """Give how the model's own settings have tokens chosen; no version of a library."""
    config = getattr(model, "generation_config", None)
    settings = {} if config is None else config.to_diff_dict()
    return {name: str(value) for name, value in settings.items() if name != "transformers_version"}


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Any of them ends a reply; what follows in a batch is padding."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    return {token for token in (*several, tokenizer.eos_token_id) if token is not None}
