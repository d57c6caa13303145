"""Drift alarms on sessions of the demo model: false alarms, and how soon a change is found.

Sessions of several turns are spoken, sampled, to messages of one kind. A baseline is calibrated on
half of them. Then are counted: false alarms on the other half; and, for changes injected at a known
turn, how often and how many tokens later an alarm comes. Changes are a user whose messages turn to
another emotion, and steering along that emotion's direction. Beside it stands a CUSUM with the
threshold of textbooks, five standard deviations; beside steering, a random direction of equal norm.

    python -m benchmarks.alarms [--sessions 120] [--rate 2]

Messages are the project's own, from `emowatch/demo/replies/messages.toml`.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch

from benchmarks.pairs import row
from emowatch import Alarm, Steering, TokenScore, hookimpl, load_bank, load_model, watch
from emowatch.demo.recipe.exchanges import own_message
from emowatch.dispatch import Dispatcher
from emowatch.drift.baseline import Baseline, calibrate
from emowatch.drift.charts import Charts, Floats
from emowatch.plugins import make_plugin_manager
from emowatch.replaying import replay
from emowatch.trace import Trace

BANK = "demo-tone7"
TURNS, CHANGED = 8, 4
"""Turns of a session, and the first one after a change."""
TOKENS = 40
ROWS = 20
"""Sessions that are spoken side by side."""
QUIET, LOUD = "neutral", "sadness"
LAYER, STRENGTH = 4, 2.0
TEXTBOOK = 5.0


class Push:
    """Steers every reply from a turn on, along a label's direction or a random one."""

    def __init__(self, direction: str | Floats) -> None:
        """Take the direction."""
        self._direction: Any = direction

    @hookimpl
    def steer(self, score: TokenScore) -> Steering | None:
        """Ask for it."""
        if score.turn < CHANGED:
            return None
        return Steering(direction=self._direction, layer=LAYER, strength=STRENGTH)


@dataclass(frozen=True, slots=True)
class Found:
    """What alarms there were in sessions."""

    sessions: int
    tokens: int
    false: int
    """Alarms before the change, or at all where there was none."""
    delays: tuple[int, ...]
    """Tokens from the change to the first alarm after it, for each session that had one."""


def speak(
    loaded: Any, emotions: Sequence[str], seed: int, plugins: Sequence[object] = ()
) -> list[Trace]:
    """Speak `ROWS` sessions side by side, one message of the turn's emotion after another."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    dialogues: list[list[dict[str, str]]] = [[] for _ in range(ROWS)]
    with watch(loaded.model, loaded.tokenizer, probes=BANK, plugins=plugins) as watching:
        for emotion in emotions:
            for dialogue in dialogues:
                dialogue.append({"role": "user", "content": own_message(emotion, rng)})
            inputs = loaded.tokenizer.apply_chat_template(
                dialogues,
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
                padding=True,
            )
            said = loaded.model.generate(**inputs, max_new_tokens=TOKENS, do_sample=True)
            replies = loaded.tokenizer.batch_decode(
                said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
            for dialogue, reply in zip(dialogues, replies, strict=True):
                dialogue.append({"role": "assistant", "content": reply.strip() or "…"})
    return [_one_row(watching.trace, number) for number in range(ROWS)]


def _one_row(trace: Trace, number: int) -> Trace:
    found = Trace(trace.session)
    for score in trace.tokens:
        if score.sequence == number:
            found.tokens.add(replace(score, sequence=0))
    return found


def ours(path: Path) -> Callable[[Trace], list[Alarm]]:
    """Judge by the plugin."""

    def judge(trace: Trace) -> list[Alarm]:
        plugins = make_plugin_manager([("drift-alarm", {"baseline": path})])
        return replay(trace, Dispatcher(plugins, on_error="raise")).alarms

    return judge


def textbook(base: Baseline) -> Callable[[Trace], list[Alarm]]:
    """Judge by a CUSUM of each label at five standard deviations."""

    def judge(trace: Trace) -> list[Alarm]:
        never, limit = [math.inf] * len(base.labels), [TEXTBOOK] * len(base.labels)
        charts, alarms = Charts(base.means, base.spreads, [never, never, limit, limit]), []
        for score in trace.tokens:
            if score.offset is None or score.segment != "reply":
                continue
            if charts.take(score.scores.array.tolist()):
                alarms.append(_alarm(score, base.labels[int(charts.values[2:].max(0).argmax())]))
                charts.restart()
        return alarms

    return judge


def _alarm(score: TokenScore, label: str) -> Alarm:
    return Alarm(
        rule="textbook",
        label=label,
        level="watch",
        score=score.scores[label],
        threshold=TEXTBOOK,
        bank=score.bank,
        turn=score.turn,
        sequence=0,
        offset=score.offset,
    )


def count(traces: Sequence[Trace], judge: Callable[[Trace], list[Alarm]], since: int) -> Found:
    """Count alarms before and after the change at turn `since`."""
    false, delays, tokens = 0, [], 0
    for trace in traces:
        places = [(s.turn, s.offset) for s in trace.tokens if s.offset is not None]
        start = next((n for n, (turn, _) in enumerate(places) if turn >= since), len(places))
        when = [places.index((alarm.turn, alarm.offset or 0)) for alarm in judge(trace)]
        false += sum(place < start for place in when)
        tokens += start
        if after := [place - start for place in when if place >= start]:
            delays.append(min(after))
    return Found(len(traces), tokens, false, tuple(delays))


def told(found: Found) -> tuple[str, str]:
    """Give the rate of false alarms, and power with the median delay."""
    rate = f"{1000 * found.false / found.tokens:.2f} per 1,000 tokens" if found.tokens else "-"
    power = f"{len(found.delays)} of {found.sessions}"
    if found.delays:
        low, middle, high = np.quantile(found.delays, (0.25, 0.5, 0.75))
        power += f", after {middle:.0f} [{low:.0f}, {high:.0f}] tokens"
    return rate, power


@click.command()
@click.option("--sessions", default=120, show_default=True)
@click.option("--rate", default=2.0, show_default=True)
def main(sessions: int, rate: float) -> None:
    """Print a table."""
    loaded = load_model()
    quiet_turns, loud_turns = [QUIET] * TURNS, [QUIET] * CHANGED + [LOUD] * (TURNS - CHANGED)
    batches = max(1, sessions // ROWS)
    quiet = [t for n in range(batches) for t in speak(loaded, quiet_turns, n)]
    half = len(quiet) // 2
    base = calibrate(quiet[:half], rate=rate)
    sys.stdout.write(f"{base.told}\n\n")
    drawn = np.random.default_rng(0).normal(size=load_bank(BANK).card.d_model)
    changes: dict[str, Callable[[int], list[Trace]]] = {
        f"the user turns from {QUIET} to {LOUD}": lambda n: speak(loaded, loud_turns, 1000 + n),
        f"steered towards {LOUD}, strength {STRENGTH:g} at layer {LAYER}": lambda n: speak(
            loaded, quiet_turns, 2000 + n, [Push(LOUD)]
        ),
        "steered along a random direction of equal norm": lambda n: speak(
            loaded, quiet_turns, 2000 + n, [Push(drawn.astype(np.float32))]
        ),
    }
    row("sessions", "drift-alarm", f"CUSUM at {TEXTBOOK:g} sd")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "baseline.json"
        base.save(path)
        judges = (ours(path), textbook(base))
        quiet_found = [told(count(quiet[half:], judge, TURNS))[0] for judge in judges]
        row(f"{len(quiet) - half} quiet ones: false alarms", *quiet_found)
        for name, make in changes.items():
            traces = [t for n in range(max(1, batches // 2)) for t in make(n)]
            found = [told(count(traces, judge, CHANGED)) for judge in judges]
            row(f"{name}: found", *(power for _, power in found))
            row("  before the change: false alarms", *(rate for rate, _ in found))


if __name__ == "__main__":
    main()
