"""What a card says of texts that do not name their emotion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionMetrics:
    """Metrics of the primary layer on one version of the test texts, beside its floors.

    Each interval is 95 %, by bootstrap over groups.
    """

    n: int
    """Texts."""
    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    tfidf_balanced_accuracy: float | None
    """`None` without the texts that the bank learned from; as its interval."""
    tfidf_balanced_accuracy_interval: Interval | None
    shuffled_balanced_accuracy: float | None
    """`None` where no heads were fitted to shuffled labels; as its interval."""
    shuffled_balanced_accuracy_interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordFree:
    """What is left of an evaluation when no text names its emotion.

    After "Whether, Not Which" (arXiv 2603.22295), where telling emotions apart suffers without
    keywords and detecting that there is one does not.
    """

    lexicon: str
    """Where the keywords come from, in words."""
    lexicon_sha256: str
    share: float
    """Of the test texts, those that held a keyword of any label."""
    share_by_label: Mapping[str, float]
    """The same of the texts of each label, those without texts left out."""
    masked_words: int
    control_words: int
    """Other words masked in the control; fewer where texts have not as many."""
    whole: VersionMetrics
    """The texts as they are."""
    masked: VersionMetrics
    """The same texts with every keyword masked."""
    control: VersionMetrics
    """The same texts with as many random other words masked instead."""
    without: VersionMetrics | None
    """The texts that held no keyword to begin with; `None` where they are too few."""
    fall: float
    """Balanced accuracy on whole texts less that on masked ones; intervals are paired."""
    fall_interval: Interval
    fall_beyond_control: float
    """Balanced accuracy on the control less that on masked texts: what the words were worth
    beyond being words."""
    fall_beyond_control_interval: Interval
    tfidf_fall: float | None
    tfidf_fall_interval: Interval | None
