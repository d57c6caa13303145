"""All that was measured of the persistence of a bank's labels, before it is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emowatch.bank.card import BankCard
from emowatch.studies.persistence.autocorrelation import Persistence
from emowatch.studies.persistence.curves import Curves, Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Curves share their resamples, so that differences are paired."""

    card: BankCard
    found: Predictions
    reach: int
    """How many offsets have enough replies of every label."""
    weights: NDArray[np.float64]
    """``[replies, offsets]``, of survivorship."""
    observed: Curves
    """Of the replies that are left."""
    weighted: Curves
    """As if no reply had ended."""
    alone_layer: int
    """Where the reply alone is read: the layer that validation likes best for that."""
    leak: Curves
    """Of a head that reads the same replies behind a message without words; weighted."""
    nulls: NDArray[np.float64]
    """``[orders, offsets]``: accuracy of heads fitted to labels in other orders; weighted."""
    persistence: Persistence
    cautions: tuple[str, ...]
    """What a reader must know of the replies, of the training and of the test."""
    left_out: Mapping[str, int]
    wanted: int | None
    """Offset that was asked for."""
