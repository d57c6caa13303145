"""Colours of emotions as one kind of screen shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emowatch.colours import DARK, LIGHT, colours_of


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours for one kind of screen."""

    dark: bool = True
    no_color: bool = False
    """Whether to use none at all, as the variable NO_COLOR asks."""

    def styles(self, labels: Sequence[str]) -> dict[str, str]:
        """Give each label its colour as a style; labels of our own keep theirs in every bank."""
        if self.no_color:
            return dict.fromkeys(labels, "")
        return colours_of(labels, DARK if self.dark else LIGHT)
