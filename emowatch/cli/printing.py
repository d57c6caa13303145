"""How scores look as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

import click

from emowatch.outbox import Counts
from emowatch.records import Alarm, ReplyToken, Scores, SteeringChange, TokenScore, Turn
from emowatch.text import clean_line
from emowatch.trace import Trace
from emowatch.tui.summary import (
    counted,
    listed,
    named,
    reply_scores,
    title,
    uncertainty_line,
)

MOST = 4
"""Labels shown of each bank."""


def token_object(token: ReplyToken) -> dict[str, Any]:
    """Give one reply token as plain values; `scores` are those of the first bank."""
    return {
        "type": "token",
        "offset": token.offset,
        "position": token.by_bank[0].position,
        "text": token.text,
        "token_id": token.token_id,
        "dominant": token.dominant,
        "scores": _plain(token.scores),
        "banks": {score.bank: _plain(score.scores) for score in token.by_bank},
        "uncertainty": {score.bank: _uncertainty(score) for score in token.by_bank},
    }


def turn_object(turn: Turn, trace: Trace) -> dict[str, Any]:
    """Give a finished turn as plain values."""
    return {
        "type": "turn",
        "model": trace.session.model,
        "text": turn.text,
        "prompt_tokens": turn.prompt_tokens,
        "reply_tokens": turn.reply_tokens,
        "finish_reason": turn.finish_reason,
        "mean_scores": {name: _plain(scores) for name, scores in turn.mean_scores.items()},
        "alarms": [_alarm(alarm) for alarm in trace.alarms],
    }


def print_plain(turn: Turn, trace: Trace) -> None:
    """Print the mean scores of a turn, a line per bank; of a reader of prompts its one score."""
    for bank in trace.session.banks:
        said = trace.reply(turn.index, turn.sequence, bank.name)
        found = turn.mean_scores.get(bank.name)
        if bank.reads_prompts:
            found = reply_scores(bank, said)
        scores = "nothing was said" if found is None else listed(found, MOST)
        click.echo(f"{title(bank)} ({named(bank)}): {scores}")
        if sure := uncertainty_line(bank, said):
            click.echo(f"  {sure}")
    click.echo(f"{counted(turn.reply_tokens, 'token')} · {turn.finish_reason}", err=True)


def print_alarms(alarms: Iterable[Alarm]) -> None:
    """Tell alarms on stderr."""
    for alarm in alarms:
        where = f"alarm ({alarm.level}) at offset {alarm.offset} in {alarm.bank}"
        line = f"{where}: {alarm.rule}, {alarm.score:.2f}"
        click.echo(clean_line(line), err=True)


def print_steering(changes: Sequence[SteeringChange]) -> None:
    """Tell on stderr who changed the model, or would have: a reply does not show it."""
    told: dict[tuple[str, str, int, str, bool], float] = {}
    for change in changes:
        if not change.ended:
            key = (change.plugin, change.mode, change.layer, change.direction, change.shadow)
            applied = change.strength if change.shadow else change.applied
            told[key] = max(told.get(key, 0.0), applied, key=abs)
    for (plugin, mode, layer, direction, shadow), most in told.items():
        how = "would have steered" if shadow else "steered"
        click.echo(
            clean_line(f"{how} by {plugin}: {mode} {direction} at layer {layer}, up to {most:.2f}"),
            err=True,
        )


def print_queues(queues: Mapping[str, Counts]) -> None:
    """Tell on stderr what became of the calls of plugins behind queues."""
    for name, counts in queues.items():
        line = f"{name}: {counted(counts.received, 'call')} queued, {counts.written} delivered"
        for left, n in (("dropped", counts.dropped), ("pending", counts.pending)):
            line += f", {n} {left}" if n else ""
        click.echo(clean_line(line), err=True)


def _plain(scores: Scores) -> dict[str, float]:
    return {label: round(score, 5) for label, score in scores.items()}


def _uncertainty(score: TokenScore) -> dict[str, Any]:
    """Give what the bank says of its own sureness; null where it says nothing."""
    measured = score.distance is not None and isfinite(score.distance)
    return {
        "label_set": list(score.label_set) or None,
        "distance": round(score.distance or 0.0, 5) if measured else None,
        "abstains": None if score.distance is None else score.abstains,
    }


def _alarm(alarm: Alarm) -> dict[str, Any]:
    return {
        "rule": alarm.rule,
        "label": alarm.label,
        "level": alarm.level,
        "score": round(alarm.score, 5),
        "bank": alarm.bank,
        "offset": alarm.offset,
    }
