"""Sessions whose scores wander as those of a model do, with or without a shift."""

from __future__ import annotations

from itertools import count

import numpy as np

from emowatch.labels import EKMAN7
from emowatch.trace import Trace
from tests.conftest import make_bank_info, make_session

_NUMBERS = count()
JOY = EKMAN7.index("joy")


def session(
    rng: np.random.Generator,
    tokens: int = 100,
    *,
    shift: float = 0.0,
    since: int = 0,
    turns: int = 2,
    rows: int = 1,
) -> Trace:
    """Make a session of replies with autocorrelated scores; `shift` moves joy from a token on."""
    trace = Trace(make_session(make_bank_info(labels=EKMAN7), id=f"s{next(_NUMBERS)}"))
    for row in range(rows):
        state = rng.normal(size=7)
        for token in range(tokens):
            state = 0.9 * state + 0.45 * rng.normal(size=7)
            logits = state.copy()
            logits[JOY] += shift if token >= since else 0.0
            scores = np.exp(logits) / np.exp(logits).sum()
            offset = token % (tokens // turns)
            trace.tokens.append(
                turn=token // (tokens // turns),
                sequence=row,
                position=10 + offset,
                offset=offset,
                segment="reply",
                scores=scores.astype(np.float32),
            )
    return trace
