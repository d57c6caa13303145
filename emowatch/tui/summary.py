"""What is said of a reply in words and numbers. It knows no screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from emowatch.records import Alarm, BankInfo, Scores, SteeringChange, TokenScore
from emowatch.text import clean_line

TITLES = {
    "reply": "tone of the reply",
    "user": "user's message, as the model reads it",
    "vector": "named direction",
}
"""What the scores of a bank speak of, by its target."""


def title(bank: BankInfo) -> str:
    """Say what a bank's scores speak of."""
    return TITLES.get(bank.target) or clean_line(bank.target, 36)


def short_title(bank: BankInfo) -> str:
    """Say the same below a reply, where it is plain whose tone is meant."""
    return "tone" if bank.target == "reply" else title(bank)


def reply_scores(bank: BankInfo, tokens: Sequence[TokenScore]) -> Scores | None:
    """Average a bank's scores over a reply; `None` for an empty one.

    Of a bank that reads prompts, give the one score that it was made for, from before the reply.
    """
    if not tokens:
        return None
    if bank.reads_prompts:
        return tokens[0].scores
    stacked = np.stack([token.scores.array for token in tokens])  # [tokens, labels]
    return Scores(bank.labels, stacked.mean(0, dtype=np.float32))


def named(bank: BankInfo) -> str:
    """Name a bank beside its scores of a reply, and say where these are not of the reply."""
    return clean_line(bank.name) + (", before the reply" if bank.reads_prompts else "")


def ranked(scores: Scores) -> list[tuple[str, float]]:
    """List labels with their scores, highest first; equal scores in the bank's order."""
    return sorted(scores.items(), key=lambda pair: -pair[1])


def listed(scores: Scores, most: int | None = None) -> str:
    """Write scores on one line, highest first.

    >>> listed(Scores(("joy", "fear"), np.array([0.25, 0.75], np.float32)))
    'fear 0.75 · joy 0.25'
    """
    return " · ".join(f"{clean_line(label)} {value:.2f}" for label, value in ranked(scores)[:most])


def braced(labels: Sequence[str]) -> str:
    """Write a label set.

    >>> braced(("fear", "sadness"))
    '{fear, sadness}'
    """
    return f"{{{', '.join(map(clean_line, labels))}}}"


def uncertainty_line(bank: BankInfo, scores: Sequence[TokenScore]) -> str:
    """Say how sure a bank is of a reply: its commonest label set, and how often it abstained.

    Empty where the bank knows nothing of either, and for an empty reply.
    """
    told = []
    sets = [score.label_set for score in scores if score.label_set and not score.abstains]
    if bank.sets is not None and sets:
        in_order = (tuple(label for label in bank.labels if label in one) for one in sets)
        ((commonest, times),) = Counter(in_order).most_common(1)
        where = f"{len(sets)} of {counted(len(scores), 'token')}"
        size = sum(map(len, sets)) / len(sets)
        told.append(
            f"{bank.sets.level:.0%} sets at {where}: most often {braced(commonest)} ({times}), "
            f"{size:.1f} labels on average"
        )
    if bank.can_abstain and scores:
        away = sum(score.abstains for score in scores)
        told.append(f"abstained at {away} of {counted(len(scores), 'token')}")
    return "; ".join(told)


def alarm_line(alarm: Alarm) -> str:
    """Write an alarm on one line: how grave, what, how high, by which rule."""
    return clean_line(
        f"{alarm.level}: {alarm.label} {alarm.score:.2f} in {alarm.bank} · {alarm.rule}"
    )


def standing(changes: Sequence[SteeringChange]) -> list[SteeringChange]:
    """Give of many changes those that hold after the last of them."""
    last = {(c.layer, c.plugin, c.direction, c.mode, c.shadow): c for c in changes}
    return [change for change in last.values() if not change.ended]


def steering_line(changes: Sequence[SteeringChange], most: int = 2) -> str:
    """Write what is done to the residual in a few words, `most` of them in full; empty where
    nothing is."""
    if not most:
        return "steered" if any(not one.shadow for one in changes) else ""
    told = [
        f"{'would ' if one.shadow else ''}{one.mode} {one.direction.rpartition('/')[2]:.16} "
        f"{one.strength if one.shadow else one.applied:+.2f}"
        for one in changes
    ]
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return clean_line(", ".join(told[:most]) + more)


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 token``, ``2 tokens``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
