"""What ``generate`` calls at each token: one tells a watch, the other stops the model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from emowatch.decoding import is_between_forwards
from emowatch.records import ReplyToken
from emowatch.watching import Watch


class Streamer(Protocol):
    """What ``generate`` asks of a streamer."""

    def put(self, value: Tensor) -> None:
        """Take the prompt, then each new token."""

    def end(self) -> None:
        """Take note that the reply is over."""


class WatchStreamer(BaseStreamer):
    """A transformers streamer that tells a watch which tokens were sampled.

    With it a watch knows the last token and the end of the reply at once. Give the streamer
    you had as `inner`; it is called as before.
    """

    def __init__(
        self,
        watcher: Watch,
        inner: Streamer | None = None,
        on_token: Callable[[ReplyToken], None] | None = None,
        was_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Connect to a watch."""
        self._was_cancelled = was_cancelled
        self._watch = watcher
        self._inner = inner
        self._on_token = on_token

    def put(self, value: Tensor) -> None:
        """Take the prompt ``[rows, time]`` first, then the tokens that were kept.

        These are ``[rows]`` of one step, or ``[1, kept]`` of a round of assisted decoding.
        """
        if value.ndim == 1 or is_between_forwards():
            for step in [value] if value.ndim == 1 else value.unbind(1):
                token = self._watch.note_tokens(step.tolist())
                if token is not None and self._on_token is not None:
                    self._on_token(token)
        if self._inner is not None:
            self._inner.put(value)

    def end(self) -> None:
        """Finish the turn."""
        self._watch.end_turn("cancelled" if self._was_cancelled() else None)
        if self._inner is not None:
            self._inner.end()


class StopOnEvent(StoppingCriteria):
    """Stops every row once its event is set."""

    def __init__(self) -> None:
        """Start with the event not set."""
        self.event = threading.Event()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Answer ``[rows]``: whether each row is to stop."""
        stopped = torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)
        return stopped
