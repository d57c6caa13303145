"""Names of emotions and the rules that any label must keep."""

from __future__ import annotations

from collections.abc import Sequence

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
