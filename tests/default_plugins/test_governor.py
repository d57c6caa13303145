"""The governor as a plugin: set-points, rows, and what it does when things go wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import emowatch
from emowatch.default_plugins.governor import Governor
from emowatch.records import Steering
from tests.conftest import make_bank_info, make_score, make_session, make_turn
from tests.control.test_tuning import TUNING
from tests.model.zoo import make_model, random_ids
from tests.watching.speaking import NEW, PROMPT, bank_for, speak

THREE = make_bank_info("mood", ("anger", "joy", "neutral"))


def begun(session: Any = None, **options: Any) -> Governor:
    """Make a governor in a session."""
    known: dict[str, Any] = {"set_point": "joy:0.5", "ki": 2.0, "bank": "mood"}
    plugin = Governor(**known | options)
    plugin.session_started(session or make_session(THREE))
    return plugin


def asked(plugin: Governor, joy: float, **place: Any) -> list[Steering]:
    """Show it a token."""
    rest = (1 - joy) / 2
    return plugin.steer(make_score([rest, joy, rest], bank=THREE, **place)) or []


def test_it_pushes_towards_a_label_that_is_low_and_away_from_one_that_is_high() -> None:
    """At the middle layer, along the bank's own direction."""
    (wish,) = asked(begun(), 0.1)
    assert (wish.direction, wish.layer, wish.mode) == ("mood/joy", 1, "add")
    assert wish.strength == pytest.approx(2.0 * 0.4)
    (wish,) = asked(begun(), 0.9)
    assert wish.strength == pytest.approx(-2.0 * 0.4)


def test_rows_and_labels_have_loops_of_their_own() -> None:
    """What one row asks for is not another's."""
    plugin = begun(set_point="joy:0.5+anger:0.2", ki="2")
    for _ in range(3):
        asked(plugin, 0.1, sequence=0)
    (joy, anger) = asked(plugin, 0.1, sequence=1)
    assert joy.strength == pytest.approx(0.8)
    assert anger.strength == pytest.approx(2.0 * (0.2 - 0.45))


def test_a_turn_that_is_over_is_forgotten() -> None:
    """The next begins at rest, and nothing is kept of the last."""
    plugin = begun()
    for _ in range(3):
        asked(plugin, 0.1)
    plugin.turn_finished(make_turn(0, 0))
    assert not plugin._loops
    (wish,) = asked(plugin, 0.1, turn=1)
    assert wish.strength == pytest.approx(0.8)


def test_a_score_that_is_no_number_lets_go() -> None:
    """It fails open."""
    plugin = begun()
    asked(plugin, 0.1)
    assert asked(plugin, float("nan")) == []


def test_a_spent_budget_lets_go_and_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Until the next reply."""
    plugin = begun(budget="3")
    found = [asked(plugin, 0.0) for _ in range(20)]
    assert found[0] and not found[-1]
    told = capsys.readouterr().err
    assert told.count("has spent its budget of 3 after") == 1


def test_a_shadow_asks_for_a_record_only() -> None:
    """The loop runs open: it sees what would have been asked for without its effect."""
    (wish,) = asked(begun(shadow="true"), 0.1)
    assert wish.shadow


def test_other_banks_scores_are_not_its_concern() -> None:
    """It reads the bank that it steers along."""
    plugin = begun(make_session(THREE, make_bank_info("tone")))
    assert plugin.steer(make_score([0.9, 0.1], bank=make_bank_info("tone"))) is None


# Tunings


def test_a_tuning_gives_bank_layer_and_gains(tmp_path: Path) -> None:
    """By hand, each can be another."""
    TUNING.save(tmp_path / "g.json")
    plugin = Governor("joy:0.4", tuning=tmp_path / "g.json")
    plugin.session_started(make_session())
    assert (plugin.kp, plugin.ki) == (TUNING.kp, TUNING.ki)
    assert Governor("joy:0.4", tuning=TUNING, ki="9").ki == 9


@pytest.mark.parametrize(
    ("tuning", "why"),
    [
        (replace(TUNING, label="anger"), "is for 'anger', and set-points are given for joy"),
        (replace(TUNING, bank="tone"), "There is no bank 'tone' in this session"),
        (replace(TUNING, sha256="cd"), "another version of the bank 'mood': tune again"),
        (replace(TUNING, layer=3), "no direction at layer 3"),
    ],
)
def test_a_tuning_of_something_else_is_refused(tuning: Any, why: str) -> None:
    """Before it steers anything."""
    with pytest.raises(ValueError, match=why):
        Governor("joy:0.4", tuning=tuning).session_started(make_session())


# Refused


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"set_point": "joy"}, "labels with their scores, such as joy:0.3"),
        ({"set_point": ""}, "labels with their scores"),
        ({"set_point": {}}, "labels with their scores"),
        ({"set_point": "joy:high"}, "labels with their scores"),
        ({"set_point": "joy:1.5"}, "above 0 and below 1; got 1.5"),
        ({"set_point": "joy:nan"}, "above 0 and below 1; got nan"),
        ({"set_point": "joy:0.2+joy:0.4"}, "contradict each other: 'joy' at 0.2 and at 0.4"),
        ({"set_point": "joy:0.7+anger:0.6"}, "add up to 1.30, and the scores of a bank"),
        ({"set_point": "joy:0.2+anger:0.2+neutral:0.2"}, "add up to 0.60; its scores add up to 1"),
        ({"set_point": "bliss:0.4"}, "No bank here has the labels bliss; the labels are: anger"),
        ({"ki": None}, "needs its gains"),
        ({"ki": "-1"}, "'ki' of governor must be a number, 0 or more"),
        ({"most": "nan"}, "'most' of governor"),
        ({"shadow": "maybe"}, "'shadow' of governor"),
        ({"layer": "top"}, "'layer' of governor"),
        ({"bank": "tone"}, "There is no bank 'tone'"),
    ],
)
def test_what_cannot_be_governed_is_refused(options: dict[str, Any], why: str) -> None:
    """With the value, and what would do."""
    with pytest.raises(ValueError, match=why):
        begun(**options)


def test_a_reply_goes_on_where_a_governor_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    """It is off for the session, and said to be."""
    model = make_model("llama")
    ids = random_ids(1, PROMPT)
    plain = speak(model, ids, min_new_tokens=NEW)
    plugin = ("governor", {"set_point": "bliss:0.4", "ki": 1})
    with emowatch.watch(model, None, probes=bank_for(model), plugins=[plugin]) as watch:
        assert torch.equal(speak(model, ids, min_new_tokens=NEW), plain)
    assert watch.plugins.errors == {"governor": 1}
    assert "No bank here has the labels bliss" in capsys.readouterr().err


def test_it_governs_each_row_of_a_batch_while_a_model_speaks() -> None:
    """Every token is recorded, and rows differ as their scores do."""
    model = make_model("llama")
    plugin = ("governor", {"set_point": "joy:0.5", "ki": 2.0})
    with emowatch.watch(
        model, None, probes=bank_for(model), plugins=[plugin], on_plugin_error="raise"
    ) as watch:
        speak(model, random_ids(2, PROMPT), min_new_tokens=NEW)
    first = {c.sequence: c for c in watch.trace.steerings if c.offset == 0}
    for row, change in first.items():
        joy = watch.trace.reply(sequence=row)[0].scores["joy"]
        assert change.strength == pytest.approx(2.0 * (0.5 - joy), abs=1e-6)
        assert (change.plugin, change.direction) == ("governor", "mood/joy")
    assert sorted(first) == [0, 1]
    assert [c.ended for c in watch.trace.steerings][-2:] == [True, True]
