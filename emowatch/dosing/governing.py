"""Tune a governor by a two-point dose test, and test it against what it must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emowatch.control import Tuning
from emowatch.control.tuning import gains
from emowatch.dosing.doses import Along, random_direction, steered
from emowatch.dosing.intervals import Interval, interval
from emowatch.dosing.speaking import Replies, Scene, speak
from emowatch.errors import TuningError

SETTLED = 30
"""Offsets that a reply is given to settle."""
HELD = 100
"""Offsets after those over which a governor is judged."""


def tune(scene: Scene, layer: int, dose: float) -> Tuning:
    """Find the slope of a label's score between no steering and a dose, and gains for it.

    The gains are for the upper end of the slope's interval, so that the loop is stable there too.

    Raises:
        TuningError: if it is not certain that the dose raises the score.
    """
    base = speak(scene)
    slopes: dict[Along, Any] = {}
    replies: dict[Along, Replies] = {}
    for along in ("label", "random"):
        replies[along] = speak(scene, [steered(scene, along, layer, dose)])
        slopes[along] = (replies[along].means - base.means) / dose
    low, high = interval(slopes["label"])
    slope = float(slopes["label"].mean())
    if low <= 0:
        primary = scene.bank.card.primary
        raise TuningError(
            f"Could not tune a governor of {scene.label!r}: a strength of {dose:g} at layer "
            f"{layer} changes its score by {slope * dose:+.3f} on average of "
            f"{len(base.means)} replies (95 %: {low * dose:+.3f} to {high * dose:+.3f}), which is "
            "no certain rise. "
            + (
                f"The bank reads layer {primary}, before what is done there: steer at a lower one."
                if layer >= primary
                else "Try another --layer, a higher --dose, or more --rounds."
            )
        )
    kp, ki = gains(high)
    card = scene.bank.card
    return Tuning(
        model=scene.loaded.name,
        bank=card.name,
        sha256=scene.bank.info.sha256,
        label=scene.label,
        layer=layer,
        doses=(0.0, dose),
        scores=(float(base.means.mean()), float(replies["label"].means.mean())),
        slope=slope,
        slope_interval=(low, high),
        random_slope=float(slopes["random"].mean()),
        random_interval=interval(slopes["random"]),
        replies=len(base.means),
        tokens=base.tokens,
        kp=kp,
        ki=ki,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How well replies kept to a set-point under one controller."""

    name: str
    replies: int
    tokens: int
    """In each reply, after settling."""
    mean: float
    mean_interval: Interval
    within: float
    """Share of replies whose mean is within .03 of the set-point."""
    spread: float
    """Standard deviation of the replies' means."""
    strength: float
    """Mean of what was added, whichever its sign."""
    saturated: float
    """Share of tokens at which it was as large as it may be."""
    swing: float
    """Mean change of what was added from one token to the next, whichever its sign."""
    reread: float
    """Mean score of the replies' text read without steering."""
    perplexity: float
    """To the unsteered model, over that of unsteered replies."""
    repetition: float
    """Share of repeated runs of four tokens, over unsteered replies."""
    aside: str
    """The other label whose `reread` has moved most from that of unsteered replies."""
    aside_change: float
    aside_interval: Interval


TOLERANCE = 0.03


def hold(
    scene: Scene,
    tuning: Tuning,
    set_point: float,
    most: float,
    times: Sequence[float] = (),
) -> dict[str, Kept]:
    """Speak at length unsteered, governed, under proportional control alone, and governed along a
    random direction; judge each by the same tokens.

    Proportional control has a gain of 0.8 over the slope: as strong as it can be without coming
    near instability, which is at 1. `times` are multiples of the gains to try beside them: the
    tuning's margin says where the loop should break.
    """
    governed: dict[str, Any] = {
        "set_point": {scene.label: set_point},
        "bank": scene.bank.card.name,
        "layer": tuning.layer,
        "most": most,
        "budget": most * scene.tokens,
    }
    whole = {"kp": tuning.kp, "ki": tuning.ki}
    aimless = random_direction(scene.bank.card.d_model, scene.seed + tuning.layer)
    ways: dict[str, dict[str, Any] | None] = {
        "unsteered": None,
        "governor": governed | whole,
        "proportional only": governed | {"kp": 0.8 / tuning.slope_interval[1], "ki": 0.0},
        "governor, random direction": governed | whole | {"direction": aimless},
    }
    for factor in times:
        gained = {"kp": factor * tuning.kp, "ki": factor * tuning.ki}
        ways |= {f"governor, gains x {factor:g}": governed | gained}
    spoken = {
        name: speak(scene, [] if options is None else [("governor", options)])
        for name, options in ways.items()
    }
    base = spoken["unsteered"]
    return {
        name: _kept(name, scene, replies, base, set_point, most) for name, replies in spoken.items()
    }


def _kept(
    name: str, scene: Scene, replies: Replies, base: Replies, set_point: float, most: float
) -> Kept:
    judged = slice(SETTLED, SETTLED + HELD)
    scores = [of[judged] for of in replies.scores if len(of) > SETTLED]
    if not scores:
        raise TuningError(
            f"Could not judge the governor: no reply is longer than the {SETTLED} tokens that it "
            "is given to settle."
        )
    means = np.array([of.mean() for of in scores])
    added = [of[judged] for of in replies.strengths if len(of) > SETTLED]
    sizes = abs(np.concatenate(added))
    labels = scene.bank.card.labels
    moved = replies.reread_all - base.reread_all  # [replies, labels]
    others = [n for n, label in enumerate(labels) if label != scene.label]
    most_moved = max(others, key=lambda n: abs(float(moved[:, n].mean())))
    return Kept(
        name=name,
        replies=len(means),
        tokens=int(np.median([len(of) for of in scores])),
        mean=float(means.mean()),
        mean_interval=interval(means),
        within=float((abs(means - set_point) <= TOLERANCE).mean()),
        spread=float(means.std(ddof=1)) if len(means) > 1 else 0.0,
        strength=float(sizes.mean()),
        saturated=float((sizes >= most * 0.999).mean()),
        swing=float(np.mean([abs(np.diff(of)).mean() for of in added if len(of) > 1] or [0.0])),
        reread=float(replies.reread.mean()),
        perplexity=float(np.exp((replies.surprise - base.surprise).mean())),
        repetition=float((replies.repetition - base.repetition).mean()),
        aside=labels[most_moved],
        aside_change=float(moved[:, most_moved].mean()),
        aside_interval=interval(moved[:, most_moved]),
    )
