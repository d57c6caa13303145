"""Closed loops in token time: the controller, and gains that keep it stable. No torch."""

from emowatch.control.loop import Limits, Loop
from emowatch.control.tuning import Tuning, margin

__all__ = ["Limits", "Loop", "Tuning", "margin"]
