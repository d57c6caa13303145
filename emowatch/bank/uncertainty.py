"""What a card says of how sure a bank is: label sets, abstention, and how both were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """Label sets and abstention, as calibrated on texts that no head was fitted to."""

    source: str
    sha256: str
    """Of the texts' file."""
    split: str
    """Which texts served for what, in words."""
    level: float
    """Share of texts whose true label the sets are to hold; classes count equally."""
    thresholds: tuple[float, ...]
    """By offset bin: the lowest score that belongs to a set."""
    groups: tuple[int, ...]
    """By offset bin: how many groups of texts its threshold rests on."""
    pooled: tuple[bool, ...]
    """By offset bin: whether it had too few groups and took the threshold of all bins."""
    last: int
    """Last offset that was calibrated."""
    keeps: float | None = None
    """Share of states like those of the calibration that are near enough; the bank abstains from
    the others. `None` where it does not abstain."""
    factors: int = 0
    """Directions of the distance that abstention rests on."""

    def fault(self, bins: Sequence[int]) -> str:
        """Say what types cannot; empty where all is in order."""
        per_bin = self.thresholds, self.groups, self.pooled
        if {len(values) for values in per_bin} != {len(bins)}:
            return f"thresholds for {len(self.thresholds)} of {len(bins)} bins"
        shares = (self.level, 1.0 if self.keeps is None else self.keeps)
        if not 0 < self.level < 1 or not 0 < shares[1] <= 1:
            return f"of the levels {shares[0]:g} and {shares[1]:g}"
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            return f"thresholds {self.thresholds} that are no probabilities"
        return "" if self.last >= 0 else f"a last offset of {self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How a bank takes texts of a kind that it was not made for; intervals are 95 %, over texts."""

    kind: str
    n: int
    """Texts."""
    abstention: float
    """Share of their states from which the bank abstains."""
    abstention_interval: Interval
    auroc: float
    """Of the distance, against the test set: 0.5 is chance."""
    auroc_interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMetrics:
    """What label sets hold on a test set; intervals are 95 %, by bootstrap over groups."""

    level: float
    """What was promised."""
    coverage: float
    """Share of states whose true label is in their set."""
    coverage_interval: Interval
    size: float
    """Mean number of labels in a set."""
    size_interval: Interval
    chance_size: float
    """Mean size at the same level of sets that know nothing."""
    coverage_by_label: Mapping[str, float]
    """Labels without test rows left out: sets that are right on average may still
    miss one label often."""
    coverage_by_label_interval: Mapping[str, Interval]
    abstention: float | None = None
    """Share of states from which the bank abstains; `None` where it cannot."""
    abstention_interval: Interval | None = None
    detection: tuple[Detection, ...] = ()
    """By kind of text, where other texts were read too."""
