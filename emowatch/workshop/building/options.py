"""Where to ask a language model, how, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """Where to ask, how, and how fast."""

    base_url: str
    """Of the API, such as ``https://api.openai.com/v1``."""
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    """Variable that holds the key; an empty name sends none."""
    max_tokens: int = 512
    """Of one answer."""
    temperature: float | None = 0.0
    """`None` leaves it to the server."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """More of the request's body; `None` takes a field out."""
    concurrency: int = 8
    """Requests under way at a time."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout_s: float = 120.0
    """Without a byte from the server."""
    attempts: int = 6
    """For one prompt."""
    first_wait_s: float = 0.5
    """After the first attempt; twice as long after each further one."""
