"""Replies that end drop out of the curve, and they are not like the others.

Inverse-probability weights (Robins, Rotnitzky and Zhao 1995) make the replies that are left at an
offset stand for all: each counts by one over its probability to have come so far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
KNOTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Offsets at which the chance to end may bend."""
TRIM = 0.99
"""Weights above this quantile of an offset are cut to it."""


def survival_weights(lengths: Ints, known: Doubles, *, most: int) -> Doubles:
    """Weigh each state by one over its reply's probability to reach its offset.

    The chance to end at each token is a logistic regression on the offset and on what is known of
    a reply at offset 0; a reply that was cut off at `most` tokens did not end.

    Args:
        lengths: ``[replies]``, tokens of each, and so its number of states.
        known: ``[replies, features]``.
        most: longest reply that was allowed.

    Returns:
        ``[replies, offsets]`` as many offsets as the longest reply has; 0 where it has ended, mean
        1 over the others.
    """
    offsets = int(lengths.max())
    alive = np.arange(offsets) < lengths[:, None]
    at_risk = alive & (np.arange(offsets) < most - 1)  # what is cut off does not end
    replies, places = np.nonzero(at_risk)
    ended = places == lengths[replies] - 1
    survival = np.ones((len(lengths), offsets))
    if ended.any() and not ended.all():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(_features(known[replies], places), ended)
        everywhere = np.tile(np.arange(offsets), len(lengths))
        rows = np.repeat(np.arange(len(lengths)), offsets)
        going = model.predict_proba(_features(known[rows], everywhere))[:, 0]
        survival[:, 1:] = going.reshape(len(lengths), offsets)[:, :-1].cumprod(1)
    weights = np.where(alive, 1 / np.maximum(survival, 1e-12), 0.0)
    for place in range(offsets):
        here = alive[:, place]
        weights[here, place] = np.minimum(
            weights[here, place], np.quantile(weights[here, place], TRIM)
        )
        weights[here, place] /= weights[here, place].mean()
    return weights


def effective_number(weights: Doubles) -> Doubles:
    """Say how many equal replies the weighted ones are worth, ``[offsets]`` (Kish 1965)."""
    squares = np.square(weights).sum(0)
    found: Doubles = np.square(weights.sum(0)) / np.maximum(squares, 1e-12)
    return found


def _features(known: Doubles, places: Ints) -> Doubles:
    """Join what is known of a reply with a broken line over the logarithm of the offset."""
    knots = np.log(np.array(KNOTS, dtype=float))
    line = np.maximum(np.log1p(places.astype(float))[:, None] - knots, 0)
    return np.concatenate([known, line, np.log1p(places.astype(float))[:, None]], 1)
