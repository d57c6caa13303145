"""Names of emotions, the rules that any label must keep, and sets of labels."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from emowatch.text import clean_line, is_printable

EKMAN7 = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
NEUTRAL = "neutral"
MAX_LABELS = 256
MAX_LABEL_LENGTH = 64


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return `labels` as a tuple.

    Raises:
        ValueError: unless they are 1 to 256 distinct names of 1 to 64 printable characters.
    """
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ValueError(f"there must be 1 to {MAX_LABELS} labels, got {len(labels)}")
    for label in labels:
        if not isinstance(label, str) or not 1 <= len(label) <= MAX_LABEL_LENGTH:
            shown = clean_line(repr(label), 80)
            raise ValueError(f"a label must have 1 to {MAX_LABEL_LENGTH} characters, got {shown}")
        if not is_printable(label):
            raise ValueError(
                f"the label {clean_line(repr(label), 80)} holds unprintable characters"
            )
    if len(set(labels)) != len(labels):
        twice = sorted({label for label in labels if list(labels).count(label) > 1})
        raise ValueError(f"labels must be distinct, got {', '.join(twice)} more than once")
    return tuple(labels)


def signs(labels: Sequence[str]) -> dict[str, str]:
    """Give each label a distinct short sign: its shortest prefix that no other label shares.

    >>> signs(["sadness", "surprise", "joy"])
    {'sadness': 'sa', 'surprise': 'su', 'joy': 'j'}
    """
    result = {}
    for label in labels:
        others = [other for other in labels if other != label]
        for length in range(1, len(label) + 1):
            if not any(other.startswith(label[:length]) for other in others):
                break
        result[label] = label[:length]
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSets:
    """Which labels are plausible at a token: split-conformal sets, a threshold per offset bin.

    At the offsets of one bin, the sets hold the true label of a share `level` of texts like those
    of the calibration (Sadinle, Lei & Wasserman 2019, arXiv 1609.00451: least ambiguous sets).
    """

    level: float
    """Share of texts whose true label is in the set, as 0.9; classes count equally."""
    bins: tuple[int, ...]
    """First offset of each bin, ascending from 0."""
    thresholds: tuple[float, ...]
    """Lowest score that belongs to the set, by bin."""
    last: int
    """Last offset that was calibrated; later tokens have no set."""

    def of(self, scores: Mapping[str, float], offset: int | None) -> tuple[str, ...]:
        """List the plausible labels, highest score first; at least the dominant one.

        Empty where nothing was calibrated: before the last prompt token (`offset` is `None`),
        after the last calibrated offset, and where scores are no numbers.
        """
        if offset is None or offset > self.last or any(map(isnan, scores.values())):
            return ()
        threshold = self.thresholds[bisect_right(self.bins, offset) - 1]
        ranked = sorted(scores.items(), key=lambda pair: -pair[1])
        return tuple(
            label for place, (label, score) in enumerate(ranked) if not place or score >= threshold
        )
