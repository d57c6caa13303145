"""Trackers, read back with their own libraries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.tracking import GeneralTracker
from emowatch_track import Track
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emowatch import Trace
from emowatch.conformance import check_plugin, recorded_trace
from emowatch.dispatch import Dispatcher
from emowatch.plugins import make_plugin_manager
from emowatch.replaying import replay


class Noted(GeneralTracker):
    """A tracker of one's own, as accelerate's documentation shows it."""

    name = "noted"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[int | None, dict[str, float]]] = []
        self.settings: dict[str, Any] = {}
        self.finished = False

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


def run(plugin: Track) -> Trace:
    """Replay the recorded session, with alarms of its own."""
    trace = recorded_trace()
    alarm = ("threshold-alarm", {"threshold": 0.4, "consecutive": 2})
    replay(trace, Dispatcher(make_plugin_manager([plugin, alarm]), on_error="raise"))
    return trace


def test_each_reply_is_a_step_with_its_means_and_maxima() -> None:
    """Worked out from the trace by other means."""
    noted = Noted()
    trace = run(Track([noted]))
    assert [step for step, _ in noted.logged] == list(range(len(trace.turns)))
    for (_, values), turn in zip(noted.logged, trace.turns, strict=True):
        assert values["emowatch/reply_tokens"] == turn.reply_tokens
        for bank, scores in turn.mean_scores.items():
            told = trace.reply(turn.index, turn.sequence, bank)
            most = np.max([score.scores.array for score in told], axis=0)
            for number, (label, mean) in enumerate(scores.items()):
                assert values[f"emowatch/{bank}/{label}/mean"] == mean
                assert values[f"emowatch/{bank}/{label}/max"] == pytest.approx(float(most[number]))
    raised = sum(values["emowatch/alarms"] for _, values in noted.logged)
    assert raised == len(trace.alarms) > 0
    assert sum(values["emowatch/steered_tokens"] for _, values in noted.logged) > 0


def test_no_text_is_logged() -> None:
    """Names and numbers only; the run's configuration is of names too."""
    noted, trace = Noted(), recorded_trace()
    trace.turns = [replace(turn, text="a secret", pieces=("a secret",)) for turn in trace.turns]
    replay(trace, Dispatcher(make_plugin_manager([Track([noted])]), on_error="raise"))
    told = repr((noted.logged, noted.settings))
    assert len(noted.logged) == len(trace.turns) and "secret" not in told
    assert noted.settings["model"] == trace.session.model


def test_trackers_of_ones_own_are_left_open() -> None:
    """They may be those of a running training."""
    noted = Noted()
    plugin = Track([noted])
    run(plugin)
    plugin.close()
    assert not noted.finished


def test_tensorboard_shows_what_was_logged(tmp_path: Path) -> None:
    """Read with tensorboard's own reader, over two sessions of one run."""
    plugin = Track("tensorboard", project="moods", dir=str(tmp_path))
    trace = run(plugin)
    run(plugin)
    plugin.close()
    read = EventAccumulator(str(tmp_path / "moods"))
    read.Reload()
    turn = trace.turns[0]
    bank, scores = next(iter(turn.mean_scores.items()))
    label, mean = next(iter(scores.items()))
    events = read.Scalars(f"emowatch/{bank}/{label}/mean")
    assert [event.step for event in events] == list(range(2 * len(trace.turns)))
    assert events[0].value == pytest.approx(mean, abs=1e-6)


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    """As `emowatch plugins check` would."""
    failed = [check for check in check_plugin(lambda: Track([Noted()])) if not check.passed]
    assert not failed, failed


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"to": "abacus"}, "no tracker 'abacus'; accelerate knows .*tensorboard"),
        ({"to": "tensorboard"}, "writes files: pass dir=FOLDER"),
    ],
)
def test_what_cannot_be_tracked_is_refused(options: dict[str, str], why: str) -> None:
    """With what there is."""
    with pytest.raises(ValueError, match=why):
        Track(**options)
