"""See and steer the emotion that a language model carries while it speaks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emowatch.bank import ProbeBank, load_bank
    from emowatch.errors import EmowatchError
    from emowatch.hookspecs import hookimpl
    from emowatch.model.loading import load_model
    from emowatch.records import (
        Alarm,
        ReplyToken,
        Session,
        Steering,
        SteeringChange,
        TokenScore,
        Turn,
    )
    from emowatch.streaming import astream, stream
    from emowatch.trace import Trace
    from emowatch.watching import watch

__version__ = "0.1.0"

_HOMES = {
    "Alarm": "emowatch.records",
    "EmowatchError": "emowatch.errors",
    "ProbeBank": "emowatch.bank",
    "ReplyToken": "emowatch.records",
    "Session": "emowatch.records",
    "Steering": "emowatch.records",
    "SteeringChange": "emowatch.records",
    "TokenScore": "emowatch.records",
    "Trace": "emowatch.trace",
    "Turn": "emowatch.records",
    "astream": "emowatch.streaming",
    "hookimpl": "emowatch.hookspecs",
    "load_bank": "emowatch.bank",
    "load_model": "emowatch.model.loading",
    "stream": "emowatch.streaming",
    "watch": "emowatch.watching",
}
"""Where each public name lives; loaded when first used, since torch takes seconds."""

__all__ = [
    "Alarm",
    "EmowatchError",
    "ProbeBank",
    "ReplyToken",
    "Session",
    "Steering",
    "SteeringChange",
    "TokenScore",
    "Trace",
    "Turn",
    "astream",
    "hookimpl",
    "load_bank",
    "load_model",
    "stream",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'emowatch' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
