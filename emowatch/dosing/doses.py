"""Dose and response: what each strength does to a label's score, to the text, and by chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from emowatch.dosing.intervals import Interval, interval
from emowatch.dosing.speaking import Replies, Scene, speak
from emowatch.plugins import PluginSpec
from emowatch.records import Floats

Along = Literal["label", "random"]
MOST_SURPRISE = 2.0
"""Perplexity beside that of unsteered replies, above which a strength is not recommended."""
MOST_REPETITION = 0.1
"""Share of repeated runs of four tokens more than in unsteered replies, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dose:
    """Replies at one layer and strength, beside unsteered replies to the same messages."""

    along: Along
    layer: int
    strength: float
    replies: int
    score: float
    """Mean score of the label over replies, while steered."""
    score_interval: Interval
    change: float
    """Against the unsteered reply to the same message with the same seed."""
    change_interval: Interval
    reread: float
    """Mean score of the replies' text read without steering."""
    reread_change: float
    reread_change_interval: Interval
    perplexity: float
    """To the unsteered model, over that of unsteered replies; 1 is no cost."""
    perplexity_interval: Interval
    repetition: float
    """Share of runs of four tokens that came before, over unsteered replies."""

    @property
    def is_fluent(self) -> bool:
        """Whether perplexity and repetition are within the guard."""
        return self.perplexity <= MOST_SURPRISE and self.repetition <= MOST_REPETITION


def random_direction(d_model: int, seed: int) -> Floats:
    """Draw a direction ``[d_model]`` of length 1, of no meaning."""
    drawn = np.random.default_rng(seed).normal(size=d_model)
    unit: Floats = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    return unit


def respond(scene: Scene, layers: Sequence[int], strengths: Sequence[float]) -> Iterator[Dose]:
    """Measure each strength at each layer, along the label's direction and along a random one.

    Args:
        scene: who speaks about what; its label's direction is steered along.
        layers: below the number of blocks.
        strengths: in units of the residual's RMS; 0 is measured by itself.

    Yields:
        The unsteered replies first, then one dose after the other.
    """
    base = speak(scene)
    yield _dose("label", layers[0], 0.0, base, base)
    for layer in layers:
        for strength in strengths:
            for along in ("label", "random"):
                replies = speak(scene, [steered(scene, along, layer, strength)])
                yield _dose(along, layer, strength, replies, base)


def best(doses: Sequence[Dose]) -> Dose | None:
    """Choose the dose along the label with the largest rise that keeps the text fluent; `None`
    where no rise is certain (its interval holds 0)."""
    fit = [
        dose
        for dose in doses
        if dose.along == "label"
        and dose.strength
        and dose.is_fluent
        and dose.change_interval[0] > 0
    ]
    return max(fit, key=lambda dose: dose.change, default=None)


def steered(scene: Scene, along: Along, layer: int, strength: float) -> PluginSpec:
    """Name the plugin that gives a dose."""
    direction: str | Floats = f"{scene.bank.card.name}/{scene.label}"
    if along == "random":
        direction = random_direction(scene.bank.card.d_model, scene.seed + layer)
    return "steer", {"direction": direction, "strength": strength, "layer": layer}


def _dose(along: Along, layer: int, strength: float, replies: Replies, base: Replies) -> Dose:
    change, reread = replies.means - base.means, replies.reread - base.reread
    dearer = replies.surprise - base.surprise
    low, high = interval(dearer)
    return Dose(
        along=along,
        layer=layer,
        strength=strength,
        replies=len(replies.means),
        score=float(replies.means.mean()),
        score_interval=interval(replies.means),
        change=float(change.mean()),
        change_interval=interval(change),
        reread=float(replies.reread.mean()),
        reread_change=float(reread.mean()),
        reread_change_interval=interval(reread),
        perplexity=float(np.exp(dearer.mean())),
        perplexity_interval=(float(np.exp(low)), float(np.exp(high))),
        repetition=float(replies.repetition.mean() - base.repetition.mean()),
    )
