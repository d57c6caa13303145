"""Gains from a dose test: as high as wanted, and well inside of where the loop becomes unstable.

The plant is taken to answer at once, as a state is read after it was steered: ``score = base +
slope · strength``, and each strength is chosen from the score before it. With the gains ``kp`` and
``ki`` the poles are those of ``z² + ((kp + ki) slope - 1) z - kp slope``; both are inside the unit
circle where ``0 < ki slope``, ``kp slope < 1`` and ``(2 kp + ki) slope < 2`` (Jury's conditions).
With ``kp = 0`` that is the bound ``ki slope < 2``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emowatch.errors import TuningError
from emowatch.text import clean_line

SCHEMA = 1
MAX_BYTES = 1 << 20
INTEGRAL = 0.3
"""Integral gain times slope: a step is made up for within some ten tokens."""
PROPORTIONAL = 0.05
"""Proportional gain times slope."""


def margin(kp: float, ki: float, slope: float) -> float:
    """Say by how much all gains could be multiplied before the loop becomes unstable.

    At 1 or below it is; 0 where the strength moves the score the wrong way or not at all.
    """
    integral, proportional = ki * slope, kp * slope
    if integral <= 0 or proportional < 0:
        return 0.0
    bound = 2 / (2 * proportional + integral)
    return min(bound, 1 / proportional) if proportional else bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What a dose test found for one label's direction at one layer, and the gains for it."""

    model: str
    bank: str
    sha256: str
    """Of the bank."""
    label: str
    layer: int
    doses: tuple[float, float]
    """Strengths that were compared."""
    scores: tuple[float, float]
    """Mean score of replies at each."""
    slope: float
    """Score per unit of strength."""
    slope_interval: tuple[float, float]
    """Its 95 % interval over replies (bootstrap)."""
    random_slope: float
    """That of a random direction of the same length."""
    random_interval: tuple[float, float]
    replies: int
    tokens: int
    """Reply tokens at each dose and direction."""
    kp: float
    ki: float

    @property
    def margin(self) -> float:
        """By how much the gains could be multiplied, at the upper end of the slope's interval."""
        return margin(self.kp, self.ki, self.slope_interval[1])

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Tuning:
        """Read one.

        Raises:
            TuningError: if there is none, or it is damaged.
        """
        shown = clean_line(str(path))
        try:
            with Path(path).expanduser().open("rb") as file:
                return _checked(json.loads(file.read(MAX_BYTES)))
        except OSError as error:
            raise TuningError(
                f"Could not read the tuning {shown!r}: {error.strerror}. Make one with "
                "`emowatch governor tune`."
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise TuningError(
                f"Could not read the tuning {shown!r}: {clean_line(why, 120)}. Make it anew "
                "with `emowatch governor tune`."
            ) from error


def gains(slope: float) -> tuple[float, float]:
    """Choose ``kp`` and ``ki`` for a slope; their margin at that slope is 5."""
    return PROPORTIONAL / slope, INTEGRAL / slope


def _checked(row: Mapping[str, Any]) -> Tuning:
    if row["schema"] != SCHEMA:
        raise ValueError(f"it is of schema {row['schema']!r}, and this version reads {SCHEMA}")
    pairs = ("doses", "scores", "slope_interval", "random_interval")
    known = {name: row[name] for name in Tuning.__dataclass_fields__}
    for name in pairs:
        first, last = known[name]
        known[name] = float(first), float(last)
    for name in ("slope", "random_slope", "kp", "ki"):
        known[name] = float(known[name])
    for name in ("layer", "replies", "tokens"):
        known[name] = int(known[name])
    numbers = [known[n] for n in ("slope", "kp", "ki")] + [x for n in pairs for x in known[n]]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("some of its numbers are not finite")
    for name in ("model", "bank", "sha256", "label"):
        known[name] = str(known[name])
    return Tuning(**known)
