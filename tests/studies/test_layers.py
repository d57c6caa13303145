"""The study of layers on a tiny model and made-up texts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emowatch.errors import StudyError
from emowatch.studies import control, layers
from emowatch.studies.layers import study_layers
from emowatch.studies.setting import Setting
from emowatch.workshop.metrics import Estimate


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "FEWEST", 1)


def test_accuracy_rises_from_chance_and_stands_beside_its_controls(setting: Setting) -> None:
    """At layer 0 nothing is legible; words that tell the class are, behind it."""
    found = study_layers(replace(setting, head="linear"), shuffles=3)
    (table,) = found.tables
    assert table.column("layer") == [0, 1, 2, 3]
    accuracy = [cell for cell in table.column("balanced accuracy") if isinstance(cell, Estimate)]
    assert accuracy[0].value == pytest.approx(1 / 3, abs=1e-4)
    assert max(one.value for one in accuracy) > 0.6
    assert all(isinstance(cell, Estimate) for cell in table.column("control task"))
    null = table.column("shuffled labels")
    assert all(isinstance(cell, Estimate) and cell.low <= 1 / 3 + 0.2 for cell in null)
    assert found.sizes == {"training texts": 60, "test texts": 36}


def test_selectivity_is_the_difference_of_two_columns(setting: Setting) -> None:
    """Row by row."""
    (table,) = study_layers(replace(setting, head="linear"), shuffles=2).tables
    columns = [table.column(n) for n in ("balanced accuracy", "control task", "selectivity")]
    for task, known, selectivity in zip(*columns, strict=True):
        assert isinstance(task, Estimate) and isinstance(known, Estimate)
        assert isinstance(selectivity, Estimate)
        assert selectivity.value == pytest.approx(task.value - known.value)


def test_without_control_and_shuffles_the_columns_are_empty(setting: Setting) -> None:
    """What was not measured is no number."""
    (table,) = study_layers(replace(setting, head="linear"), control=False, shuffles=0).tables
    assert "published" not in table.columns
    for name in ("control task", "selectivity", "shuffled labels"):
        assert set(table.column(name)) == {None}


def test_states_and_banks_are_made_once(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run opens what the first has left, and finds the same."""
    first = study_layers(replace(setting, head="linear"), shuffles=2)
    monkeypatch.setattr("emowatch.workshop.extraction._read_shard", None)  # a call would fail
    monkeypatch.setattr("emowatch.studies.probing.train_bank", None)
    second = study_layers(replace(setting, head="linear"), shuffles=2)
    assert first.tables == second.tables


def test_a_broken_law_stops_the_run_before_any_head_is_fitted(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures of the wrong token are worse than none."""
    setting.loaded.tokenizer.chat_template = "{{ messages[0]['content'] }}"  # no marker at the end
    monkeypatch.setattr(layers, "train", None)  # a call would fail
    with pytest.raises(StudyError, match="different tokens"):
        study_layers(setting)
