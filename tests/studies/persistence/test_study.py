"""The study of persistence from messages to figures, on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emowatch.errors import StudyError, UsageError
from emowatch.studies.folder import write_findings
from emowatch.studies.persistence import PersistenceOptions, study_persistence
from emowatch.studies.persistence.study import check_reach
from emowatch.studies.setting import Setting
from emowatch.workshop.metrics import Estimate

SHORT = PersistenceOptions(max_new_tokens=6, states_per_reply=3, shuffles=2, bandwidth=1.0)


def test_one_call_leads_from_messages_to_figures(setting: Setting, tmp_path: Path) -> None:
    """All controls stand in one table, offset by offset."""
    found = study_persistence(setting, SHORT)
    offsets, lives, lags = found.tables
    assert offsets.column("offset") == [0, 1, 2, 4]
    for name in ("those left", "survivorship weighted", "reply alone", "shuffled labels"):
        cells = offsets.column(name)
        assert all(isinstance(cell, Estimate) and 0 <= cell.value <= 1 for cell in cells)
    first = offsets.rows[0]
    alone = first[offsets.columns.index("reply alone")]
    assert isinstance(alone, Estimate) and alone.value == pytest.approx(1 / 3, abs=1e-6)
    assert lives.column("label") == list(setting.train.labels)
    assert lags.column("lag") == [1, 2, 4]
    write_findings(found, tmp_path)
    for name in ("accuracy", "recall", "lags"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 1000
    assert len((tmp_path / "accuracy.csv").read_text().splitlines()) == 1 + 6


def test_each_emotion_has_its_own_residual(setting: Setting) -> None:
    """Half-lives, too, may be of the reply's words alone."""
    found = study_persistence(setting, SHORT)
    assert found.tables[1].columns[-1] == "of the residual"
    recall = next(figure for figure in found.figures if figure.name == "recall").data
    names = ("informedness", "reply alone", "residual")
    for informed, alone, residual in zip(*map(recall.column, names), strict=True):
        assert isinstance(informed, Estimate) and isinstance(alone, Estimate)
        assert isinstance(residual, Estimate)
        assert residual.value == pytest.approx(informed.value - alone.value)


def test_an_offset_past_the_longest_reply_is_refused_before_anything_is_written(
    setting: Setting,
) -> None:
    """No reply can go so far."""
    asked = PersistenceOptions(max_new_tokens=6, offsets=6)
    with pytest.raises(UsageError, match=r"at most 6 tokens end at offset 5"):
        study_persistence(setting, asked)
    assert not setting.work.exists()


def test_replies_of_hardly_a_word_are_refused_before_any_training(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to follow."""
    monkeypatch.setattr("emowatch.studies.persistence.study.train", None)  # a call would fail
    with pytest.raises(StudyError, match="only 0 of 36 test replies have three tokens"):
        study_persistence(setting, PersistenceOptions(max_new_tokens=2))


def test_the_residual_is_the_state_less_the_reply_alone(setting: Setting) -> None:
    """Row by row, with the interval of the paired difference."""
    offsets = study_persistence(setting, SHORT).tables[0]
    names = ("survivorship weighted", "reply alone", "residual")
    for weighted, alone, residual in zip(*map(offsets.column, names), strict=True):
        assert isinstance(weighted, Estimate) and isinstance(alone, Estimate)
        assert isinstance(residual, Estimate)
        assert residual.value == pytest.approx(weighted.value - alone.value)


def test_an_offset_that_no_reply_has_is_refused() -> None:
    """The message says how far replies go, and what to change."""
    lengths, labels = np.arange(3, 43), np.arange(40) % 2
    check_reach(lengths, labels, ("joy", "sadness"), PersistenceOptions(offsets=41))
    with pytest.raises(
        StudyError,
        match=r"to offset 42: of 40 replies the longest ends at offset 41, and 10 reach offset 32",
    ):
        check_reach(lengths, labels, ("joy", "sadness"), PersistenceOptions(offsets=42))


def test_too_few_replies_of_a_label_are_refused_before_any_training(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A curve of a handful of replies would say anything."""
    monkeypatch.setattr("emowatch.studies.persistence.study.train", None)  # a call would fail
    few = replace(setting, test=replace(setting.test, examples=setting.test.examples[:27]))
    with pytest.raises(StudyError, match=r"only 9 test messages of 'joy' were answered"):
        study_persistence(few, SHORT)
