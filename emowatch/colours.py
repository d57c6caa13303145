"""Colours of emotions that people with any colour vision can tell apart.

The dark set is Okabe and Ito's; its blue and black would vanish on a dark ground and are left
out. The light set holds the same hues, dark enough for a white ground. Nobody depends on colours:
wherever they stand, a sign, a name or a number says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DARK: Mapping[str, str] = {
    "anger": "#D55E00",
    "disgust": "#00A87B",
    "fear": "#CC79A7",
    "joy": "#F0E442",
    "neutral": "#9A9FA8",
    "sadness": "#56B4E9",
    "surprise": "#E69F00",
}
LIGHT: Mapping[str, str] = {
    "anger": "#B34700",
    "disgust": "#00775A",
    "fear": "#A03C7A",
    "joy": "#6F6600",
    "neutral": "#5F646D",
    "sadness": "#0067A3",
    "surprise": "#8F5F00",
}
_CYCLE = ("sadness", "surprise", "disgust", "fear", "joy", "anger")
"""Order in which labels that are no Ekman emotion take the colours."""


def colours_of(labels: Sequence[str], colours: Mapping[str, str]) -> dict[str, str]:
    """Give each label its colour; labels that are no Ekman emotion take them in turn."""
    others = [label for label in labels if label not in colours]
    return {
        label: colours[label]
        if label in colours
        else colours[_CYCLE[others.index(label) % len(_CYCLE)]]
        for label in labels
    }
