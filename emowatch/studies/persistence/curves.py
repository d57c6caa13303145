"""From predictions at each offset to curves with intervals, and to half-lives. Numbers only.

Replies are resampled in groups, and all curves of one study share the resamples, so that
differences between them are paired.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emowatch.workshop.metrics import Estimate

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
RESAMPLES = 1000
CHUNK = 50
"""Resamples that are computed together."""
BANDWIDTH = 3.0
"""Standard deviation of the smoothing kernel, in tokens."""
FEWEST = 10
"""Replies of a label that an offset needs before anything is said of it there."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a head takes each state of some replies for.

    An entry is -1 where the reply has ended.
    """

    predicted: Ints
    """``[replies, offsets]``."""
    labels: Ints
    """``[replies]``, the emotion of the message."""
    groups: Ints
    """``[replies]``, numbered from 0."""
    n_labels: int

    @property
    def alive(self) -> NDArray[np.bool_]:
        """``[replies, offsets]``: where there is a state."""
        return self.predicted >= 0

    @property
    def counts(self) -> Ints:
        """``[labels, offsets]``: replies that reach an offset."""
        found = [self.alive[self.labels == label].sum(0) for label in range(self.n_labels)]
        return np.stack(found)

    @property
    def reach(self) -> int:
        """How many offsets have enough replies of every label."""
        fewest = self.counts.min(0)
        return len(fewest) if fewest[-1] >= FEWEST else int((fewest < FEWEST).argmax())


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves over offsets; the first row is the figure, the others its resamples."""

    accuracy: Doubles
    """``[1 + resamples, offsets]``: mean recall over labels."""
    recall: Doubles
    """``[1 + resamples, labels, offsets]``."""
    informedness: Doubles
    """``[1 + resamples, labels, offsets]``: recall less the rate at which messages of the other
    labels are taken for this one; 0 at chance, however often the label is predicted."""


def draw(groups: Ints, *, seed: int, resamples: int = RESAMPLES) -> Doubles:
    """Draw how often each reply counts ``[1 + resamples, replies]``; in the first row, once."""
    rng = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1
    drawn = rng.integers(0, n_groups, (resamples, n_groups))
    counts = np.apply_along_axis(np.bincount, 1, drawn, minlength=n_groups)
    return np.concatenate([np.ones((1, len(groups))), counts[:, groups].astype(float)])


def smoothing(offsets: int, bandwidth: float = BANDWIDTH) -> Doubles:
    """Give the matrix ``[offsets, offsets]`` that smooths sums along offsets.

    Offset 0 stands alone: it is the last token of the prompt, and another kind of state.
    """
    place = np.arange(offsets)
    kernel = np.exp(-0.5 * ((place[:, None] - place) / bandwidth) ** 2)
    kernel[kernel < 1e-3] = 0
    kernel[0, 1:] = kernel[1:, 0] = 0
    kernel[0, 0] = 1
    return kernel


def curves(
    found: Predictions, draws: Doubles, weights: Doubles | None = None, *, bandwidth: float
) -> Curves:
    """Smooth hits and counts along offsets, and divide.

    Args:
        found: predictions.
        draws: from `draw`.
        weights: ``[replies, offsets]``, how much each state counts; all the same where `None`.
        bandwidth: of `smoothing`.
    """
    alive = found.alive.astype(float)
    weight = alive if weights is None else alive * weights
    kernel = smoothing(alive.shape[1], bandwidth)
    members = [np.flatnonzero(found.labels == label) for label in range(found.n_labels)]
    parts = [
        _some(found, draws[first : first + CHUNK], weight, kernel, members)
        for first in range(0, len(draws), CHUNK)
    ]
    return Curves(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _some(
    found: Predictions, draws: Doubles, weight: Doubles, kernel: Doubles, members: list[Ints]
) -> tuple[Doubles, Doubles, Doubles]:
    n_labels, offsets = found.n_labels, weight.shape[1]
    shares = np.empty((len(draws), n_labels, n_labels, offsets))  # [draw, true, predicted, offset]
    with np.errstate(invalid="ignore", divide="ignore"):  # no reply of a label: NaN
        for label, rows in enumerate(members):
            total = (draws[:, rows] @ weight[rows]) @ kernel
            for other in range(n_labels):
                hits = weight[rows] * (found.predicted[rows] == other)
                shares[:, label, other] = (draws[:, rows] @ hits) @ kernel / total
    recall = np.einsum("dllk->dlk", shares)
    taken = shares.sum(1) - recall  # by other labels' messages
    return recall.mean(1), recall, recall - taken / max(1, n_labels - 1)


def estimate_at(values: Doubles, offset: int) -> Estimate:
    """Give ``[1 + resamples, offsets]`` at one offset with its 95 % interval."""
    here = values[:, offset]
    drawn = here[1:][np.isfinite(here[1:])]
    if not len(drawn) or not math.isfinite(here[0]):
        return Estimate(float(here[0]), float("nan"), float("nan"))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(float(here[0]), float(low), float(high))


def half_life(informedness: Doubles, *, start: int = 0) -> Estimate | None:
    """Find the first offset at which half of what `start` shows is gone.

    Args:
        informedness: ``[1 + resamples, offsets]`` of one label, as far as there are enough
            replies.
        start: offset whose value is halved.

    Returns:
        In tokens from `start`; infinite where it does not happen within the offsets. `None`
        where the label is not told apart from chance at `start` to begin with.
    """
    if informedness.shape[1] <= start + 1 or not estimate_at(informedness, start).low > 0:
        return None
    below = informedness[:, start:] <= informedness[:, start : start + 1] / 2
    lives = np.where(below.any(1), below.argmax(1), np.inf)
    lives = lives[informedness[:, start] > 0]
    low, high = np.quantile(lives[1:], (0.025, 0.975), method="closest_observation")
    return Estimate(float(lives[0]), float(low), float(high))
