"""How alike a direction's readings are, so many tokens apart, beside random directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emowatch.studies.persistence.curves import FEWEST
from emowatch.studies.persistence.directions import RANDOM, lagged, matched_directions
from emowatch.studies.persistence.reading import Replies

Doubles = NDArray[np.float64]
LAGS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Persistence:
    """Correlations at some lags; the first row is the figure, the others its resamples."""

    lags: tuple[int, ...]
    pairs: tuple[int, ...]
    """Pairs of states at each lag."""
    emotion: Doubles
    """``[lags, 1 + resamples, labels]``."""
    random: Doubles
    """``[lags, 1 + resamples, labels]``: mean over the directions matched to each emotion."""
    mismatch: float
    """Largest relative difference between a random direction's variance and its emotion's."""


def autocorrelation(
    replies: Replies, directions: Tensor, draws: Doubles, *, seed: int
) -> Persistence:
    """Correlate readings of the same reply along each direction, lag by lag.

    The mean of each offset is taken off first, since what every reply does at some offset is no
    memory; offset 0 is left out, being a token of the prompt, and so are those that few reach,
    whose mean would take most of a state off.

    Args:
        replies: states of one layer.
        directions: ``[labels, d_model]``, of length 1.
        draws: resamples of the replies.
        seed: of the random directions.
    """
    (states,) = replies.rows.states
    offsets = replies.rows.offsets
    sums = torch.zeros(int(offsets.max()) + 1, states.shape[1]).index_add_(0, offsets, states)
    means = sums / torch.bincount(offsets).clamp(min=1)[:, None]
    centred = states - means[offsets]
    counts = torch.bincount(offsets)
    reached = int((counts >= FEWEST).sum())  # replies only end, so the first ones
    counted = centred[(offsets > 0) & (offsets < reached)]
    covariance = (counted.T @ counted) / len(counted)
    matched = matched_directions(directions, covariance, seed=seed)  # [labels, count, d_model]
    n_labels = len(directions)
    everything = torch.cat([directions, matched.flatten(0, 1)])  # [labels · (1 + count), d_model]
    variance = ((everything @ covariance) * everything).sum(1)
    own, others = variance[:n_labels, None], variance[n_labels:].reshape(n_labels, -1)
    projected = replies.spread((centred @ everything.T).numpy().astype(np.float64), np.nan)
    projected = projected[:, :reached]
    alive = np.arange(reached) < replies.lengths[:, None]
    lags, pairs, emotion, random = [], [], [], []
    for lag in LAGS:
        if 1 + lag >= reached:
            break
        moments = lagged(projected, alive, lag)
        found = moments.correlation(draws)  # [1 + resamples, directions]
        lags.append(lag)
        pairs.append(int((alive[:, 1 + lag :]).sum()))
        emotion.append(found[:, :n_labels])
        random.append(found[:, n_labels:].reshape(len(draws), n_labels, RANDOM).mean(2))
    return Persistence(
        lags=tuple(lags),
        pairs=tuple(pairs),
        emotion=np.array(emotion),
        random=np.array(random),
        mismatch=float(((others - own) / own).abs().max()),
    )
