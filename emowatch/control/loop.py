"""A proportional-integral controller for one label in one reply.

At each token it sees a score and says with which strength to steer until the next one. Numbers
only; it knows nothing of directions or plugins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a controller may do, in units of the residual's RMS."""

    most: float = 6.0
    """Largest strength, towards the label or away from it."""
    slew: float = 1.0
    """Largest change from one token to the next."""
    dead_band: float = 0.0
    """Errors of the score up to this one count as none."""
    budget: float = math.inf
    """Largest sum of strengths over a reply; then it lets go."""


def _within(limit: float, value: float) -> float:
    return min(max(value, -limit), limit)


class Loop:
    """One label's controller over one reply.

    Attributes:
        strength: what it asks for now.
        spent: sum of the strengths so far, whichever their sign.
        tokens: how many scores it has seen.
        limited: at how many of them the strength was as large as it may be.
    """

    def __init__(self, target: float, kp: float, ki: float, limits: Limits) -> None:
        """Begin at rest.

        Args:
            target: the score to keep, between 0 and 1.
            kp: strength per unit of error.
            ki: strength per unit of error and token.
            limits: what it may do.
        """
        self.target = target
        self.kp = kp
        self.ki = ki
        self.limits = limits
        self.strength = 0.0
        self.spent = 0.0
        self.tokens = 0
        self.limited = 0
        self._integral = 0.0

    @property
    def is_spent(self) -> bool:
        """Whether its budget is used up."""
        return self.spent >= self.limits.budget

    def take(self, score: float) -> float:
        """See the score of a token; return the strength until the next one.

        It fails open: where the score is no number it lets go, and begins at rest again with the
        next that is one. So it does, for good, when its budget is spent.
        """
        self.tokens += 1
        limits = self.limits
        if not math.isfinite(score) or self.is_spent:
            self._integral = self.strength = 0.0
            return 0.0
        error = self.target - score
        if abs(error) <= limits.dead_band:
            error = 0.0
        # It never winds up behind the largest strength. Behind the slew it must: scores of tokens
        # jump further in one direction than in the other, and an integral that forgot what the slew
        # cut off would settle beside the set-point.
        self._integral = _within(limits.most, self._integral + self.ki * error)
        wanted = _within(limits.most, self.kp * error + self._integral)
        given = self.strength + _within(limits.slew, wanted - self.strength)
        self.limited += abs(given) >= limits.most
        self.strength = given
        self.spent += abs(given)
        return given
