"""What plugins cost, apart from any model: their share of a token's time, and what a log takes.

Tokens of seven scores are told to the plugins of one session, as a model would. The goals are
those of the project.

    python -m benchmarks.plugins [--tokens 20000] [--pairs 5]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.pairs import row
from emowatch.conformance import recorded_trace
from emowatch.conformance.company import bad_company
from emowatch.dispatch import Dispatcher
from emowatch.drift.baseline import calibrate
from emowatch.hookspecs import hookimpl
from emowatch.labels import EKMAN7
from emowatch.plugins import DEFAULT_PLUGINS, make_plugin_manager
from emowatch.records import Scores, TokenScore
from emowatch.trace import Trace

TURN = 128
"""Tokens of a reply."""
TOGETHER = {"both logs and a threshold": ("jsonl-log", "sqlite-log", "threshold-alarm")}


class Counts:
    """Hears every token."""

    def __init__(self) -> None:
        self.heard = 0

    @hookimpl
    def token_scored(self) -> None:
        """Count."""
        self.heard += 1


class Raises:
    """Fails at every token, until it is switched off."""

    @hookimpl
    def token_scored(self) -> None:
        """Fail."""
        raise RuntimeError("always")


def stream(bank: str, tokens: int, seed: int = 0) -> list[TokenScore]:
    """Make reply tokens of seven scores each."""
    drawn = np.random.default_rng(seed).dirichlet(np.ones(len(EKMAN7)), tokens).astype(np.float32)
    return [
        TokenScore(
            bank=bank,
            turn=number // TURN,
            sequence=0,
            position=number % TURN,
            offset=number % TURN,
            segment="reply",
            scores=Scores(EKMAN7, drawn[number]),
        )
        for number in range(tokens)
    ]


def told(scores: Sequence[TokenScore], plugins: Sequence[Any]) -> tuple[float, Dispatcher]:
    """Tell plugins of all tokens; give the seconds that it took, and the dispatcher."""
    trace = recorded_trace()
    session, turn = trace.session, trace.turns[0]
    dispatcher = Dispatcher(make_plugin_manager(plugins))
    dispatcher.tell("session_started", session)
    started = time.perf_counter()
    for score in scores:
        if score.offset == 0 and score.turn:
            dispatcher.tell("turn_finished", session, turn=turn)
        if score.offset == 0:
            for _ in dispatcher.call("steer_turn", session, turn=score.turn, sequence=0):
                pass
        dispatcher.tell("token_scored", session, score=score)
        for _, answer in dispatcher.call("judge", session, score=score):
            for alarm in answer if isinstance(answer, list) else [answer]:
                dispatcher.tell("alarm_raised", session, alarm=alarm)
        for _ in dispatcher.call("steer", session, score=score):
            pass
    dispatcher.tell("turn_finished", session, turn=turn)
    took = time.perf_counter() - started
    dispatcher.tell("session_finished", session)
    return took, dispatcher


def built_in(folder: Path, bank: str) -> dict[str, Callable[[object], dict[str, Any]]]:
    """Give the options of each plugin that comes with emowatch, for a number of its own.

    Rules are set so that they seldom speak, as they should.
    """
    quiet = [_session(number) for number in range(60)]
    calibrate(quiet, bank=bank, rate=5).save(folder / "baseline.json")
    options: dict[str, Callable[[object], dict[str, Any]]] = {
        "jsonl-log": lambda n: {"path": folder / f"{n}.jsonl"},
        "sqlite-log": lambda n: {"path": folder / f"{n}.db"},
        "threshold-alarm": lambda n: {},
        "spike-alarm": lambda n: {"rise": 0.95},
        "drift-alarm": lambda n: {"baseline": folder / "baseline.json"},
        "early-warning": lambda n: {
            "labels": "anger+fear",
            "counter": "neutral",
            "threshold": 0.95,
        },
        "steer": lambda n: {"direction": f"{bank}/joy", "layer": 2},
        "governor": lambda n: {"set_point": "joy:0.14", "bank": bank, "ki": 0.3, "layer": 2},
    }
    assert set(options) == set(DEFAULT_PLUGINS)
    return options


def _session(number: int) -> Trace:
    """Make a quiet session of one reply."""
    trace = Trace(recorded_trace().session)
    for score in stream(trace.session.banks[0].name, TURN, seed=1 + number):
        trace.tokens.add(score)
    return trace


def quartiles(values: Sequence[float]) -> str:
    """Give median and quartiles."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.3g} [{low:.3g}, {high:.3g}] ({len(values)} runs)"


@click.command()
@click.option("--tokens", default=20_000)
@click.option("--pairs", default=5)
def main(tokens: int, pairs: int) -> None:
    """Print a table."""
    bank = recorded_trace().session.banks[0].name
    scores = stream(bank, tokens)
    row("what", "median [quartiles]", "goal")
    with tempfile.TemporaryDirectory() as folder:
        options = built_in(Path(folder), bank)
        ways = {name: (name,) for name in options} | TOGETHER | {"all of them": tuple(options)}
        alone: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(pairs):
            for way, names in ways.items():
                asked = [(name, options[name](f"{way} {number}")) for name in names]
                alone[way].append(told(scores, asked)[0] / tokens)
    for name, times in alone.items():
        goal = "≤ 60" if name == "all of them" else ""
        row(f"{name}: microseconds a token", quartiles([1e6 * t for t in times]), goal)
    speeds = [1 / t for t in alone["sqlite-log"]]
    row("sqlite-log: tokens a second, seven scores each", quartiles(speeds), "≥ 5,000")
    ratios = []
    for _ in range(pairs):
        plain = told(scores, [Counts()])[0]
        ratios.append(told(scores, [Raises(), Counts()])[0] / plain)
    row("beside one that raises at every token / without it", quartiles(ratios), "≤ 1.01")
    good = [Counts() for _ in range(30)]
    kinds = bad_company()
    bad = [type(kinds[n % len(kinds)])() for n in range(70)]
    mixed = [plugin for pair in zip(bad, [*good, *[None] * 40], strict=True) for plugin in pair]
    _, dispatcher = told(scores[:2_000], [plugin for plugin in mixed if plugin is not None])
    heard = {plugin.heard for plugin in good}
    row("30 good plugins among 70 that misbehave heard", f"{heard} of 2000", "2000")
    row("  of the 70 were switched off", str(len(dispatcher.errors)), "")
    row("  were moved behind a queue", str(len(dispatcher.counts)), "")


if __name__ == "__main__":
    main()
