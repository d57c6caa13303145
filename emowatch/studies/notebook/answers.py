"""What the model answers, and what becomes of the answer when its last token is pushed.

Only the state of the last token is changed, so what was read before it is read once and kept: an
intervention costs a forward of one token, and is exactly that of the whole prompt.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emowatch.errors import StudyError
from emowatch.model.readable import check_readable
from emowatch.studies.notebook.sites import Parts, Push, Site, standing

Reads = dict[Site, Tensor]


class Batch:
    """Some prompts, read up to their last token."""

    @torch.no_grad()
    def __init__(
        self, model: nn.Module, parts: Parts, rows: Tensor, prompts: Sequence[Sequence[int]]
    ) -> None:
        """Read all but the last token of `prompts`, which belong to the texts numbered `rows`."""
        check_readable(model)
        self._model: Any = model
        self._parts = parts
        self.rows = rows
        device = next(model.parameters()).device
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        self._ids, self._mask = ids.to(device), mask.to(device)
        self._places = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._accepted = inspect.signature(self._model.forward).parameters
        self._cache: Any = self._forward(slice(0, longest - 1), None).past_key_values
        if self._cache is None:
            raise StudyError(
                f"Could not push the last token of {type(model).__name__}: it keeps no cache of "
                "what it has read."
            )

    @torch.no_grad()
    def answer(
        self, pushes: Mapping[Site, Push], reads: Sequence[Site] = ()
    ) -> tuple[Tensor, Reads]:
        """Read the last token under `pushes`.

        Returns:
            Logits ``[rows, vocabulary]`` in float32, and what `standing` read at `reads`.
        """
        last = slice(self._ids.shape[1] - 1, None)
        with standing(self._parts, self.rows, pushes, reads) as found:
            output = self._forward(last, copy.deepcopy(self._cache))
        return output.logits[:, -1].float().cpu(), {
            site: state.cpu() for site, state in found.items()
        }

    def _forward(self, columns: slice, cache: Any) -> Any:
        end = self._ids[:, columns].shape[1] + (columns.start or 0)
        inputs: dict[str, Any] = {
            "input_ids": self._ids[:, columns],
            "attention_mask": self._mask[:, :end],
            "past_key_values": cache,
            "use_cache": True,
        }
        if "position_ids" in self._accepted:
            inputs["position_ids"] = self._places[:, columns]
        if "logits_to_keep" in self._accepted:
            inputs["logits_to_keep"] = 1
        return self._model(**inputs)


def label_tokens(tokenizer: Any, labels: Sequence[str]) -> tuple[int, ...] | None:
    """Find the token with which each label begins as an answer.

    Returns:
        `None` where two labels begin with the same token, so that none can be told.
    """
    before: list[int] = tokenizer("Answer:", add_special_tokens=False)["input_ids"]
    found = []
    for label in labels:
        ids: list[int] = tokenizer(f"Answer: {label}", add_special_tokens=False)["input_ids"]
        same = ids[: len(before)] == before and len(ids) > len(before)
        alone: list[int] = tokenizer(f" {label}", add_special_tokens=False)["input_ids"]
        found.append(ids[len(before)] if same else alone[0])
    return tuple(found) if len(set(found)) == len(found) else None
