"""What is legible: the split, the control task, the tables beside their floors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from emowatch.errors import StudyError
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import LoadedModel
from emowatch.studies.law import HELD, UNREAD
from emowatch.studies.notebook.accounts import APPRAISALS, Accounts
from emowatch.studies.notebook.curves import appraisal_tables, emotion_curve
from emowatch.studies.notebook.probes import (
    Control,
    check_tells_nothing,
    first_words,
    read_probes,
    split,
)
from emowatch.studies.notebook.states import ask, check_layer_0, read_layers
from emowatch.workshop.metrics import Estimate
from emowatch.workshop.preparation import quiet


def test_the_split_is_the_notebooks(accounts: Accounts) -> None:
    """scikit-learn's with seed 42, whatever the emotions."""
    train, test = train_test_split(np.arange(60), test_size=0.2, random_state=42)
    sides = split(accounts, 42)
    assert sides.train.tolist() == sorted(train)
    assert sides.test.tolist() == sorted(test)


def test_a_split_without_an_emotion_is_refused(accounts: Accounts) -> None:
    """Its accuracy would be of another task."""
    rare = np.zeros(60, dtype=np.int64)
    rare[0] = 1
    with pytest.raises(StudyError, match="none of those to learn from"):
        split(
            replace(accounts, emotions=rare, labels=accounts.labels[:2]),
            next(s for s in range(99) if 0 in held(s)),
        )


def test_an_emotion_that_no_test_text_is_of_is_no_reason_to_stop(accounts: Accounts) -> None:
    """The notebook splits whatever the emotions are; of small samples some are on one side."""
    rare = np.zeros(60, dtype=np.int64)
    rare[0] = 1
    sides = split(
        replace(accounts, emotions=rare, labels=accounts.labels[:2]),
        next(s for s in range(99) if 0 not in held(s)),
    )
    assert not rare[sides.test].any()


def held(seed: int) -> list[int]:
    """Say which of 60 texts the notebook's split holds out."""
    return [
        int(place) for place in train_test_split(np.arange(60), test_size=0.2, random_state=seed)[1]
    ]


def test_a_probe_that_tells_equal_states_apart_stops_the_study(
    accounts: Accounts, loaded: LoadedModel, tmp_path: Path
) -> None:
    """At layer 0 the last token has one state in every text."""
    blocks = find_blocks(loaded.model)
    questions = ask(accounts, loaded)
    activations = read_layers(
        questions, loaded, blocks, (0, 1), tmp_path, batch_tokens=2048, report=quiet
    )
    assert check_layer_0(questions, activations) is HELD
    assert check_layer_0(questions, activations.only((1,))) is UNREAD
    sides = split(accounts, 42)
    legible = read_probes(accounts, activations, sides, seed=42, report=quiet)
    emotions = accounts.emotions[sides.test]
    check_tells_nothing(legible, emotions)
    mixed = replace(legible, right=1 - legible.right)
    with pytest.raises(StudyError, match="gives them different emotions"):
        check_tells_nothing(mixed, emotions)
    ids = questions.passages[0].ids
    other = replace(questions.passages[0], ids=(*ids[:-1], ids[-1] + 1))
    with pytest.raises(StudyError, match="their last tokens are 2"):
        check_layer_0(replace(questions, passages=(other, *questions.passages[1:])), activations)


def test_selectivity_is_paired(accounts: Accounts, loaded: LoadedModel, tmp_path: Path) -> None:
    """Where both tasks are told of the same texts, there is no doubt about the difference."""
    blocks = find_blocks(loaded.model)
    questions = ask(accounts, loaded)
    activations = read_layers(
        questions, loaded, blocks, (0, 1), tmp_path, batch_tokens=2048, report=quiet
    )
    sides = split(accounts, 42)
    legible = read_probes(accounts, activations, sides, seed=42, report=quiet)
    n = len(sides.test)
    control = Control(
        words=("i", "it", "then"),
        train=sides.train,
        train_words=np.zeros(len(sides.train), dtype=np.int64),
        test=sides.test,
        test_words=np.zeros(n, dtype=np.int64),
    )
    right = legible.right[:, -1]
    same = replace(legible, control=control, control_right=right.copy())
    cell = emotion_curve(accounts, sides, same, {}, seed=42).table.column("selectivity")[1]
    assert cell == Estimate(0, 0, 0)
    half = replace(control, test=sides.test[::2], test_words=control.test_words[::2])
    part = replace(legible, control=half, control_right=right[:, ::2])
    table = emotion_curve(accounts, sides, part, {}, seed=42).table
    found, accuracy, word = (
        table.column(name)[1] for name in ("selectivity", "accuracy", "first word")
    )
    assert isinstance(found, Estimate) and isinstance(accuracy, Estimate)
    assert isinstance(word, Estimate)
    assert word.value == pytest.approx(right[1, ::2].mean())
    assert found.value == pytest.approx(accuracy.value - word.value)


def test_the_control_task_has_the_common_first_words_alone(accounts: Accounts) -> None:
    """A word that training hardly has cannot be told."""
    texts = [f"{('I', 'My', 'When', f'word{n}')[n % 4]} was there" for n in range(60)]
    sides = split(accounts, 42)
    control = first_words(texts, sides)
    assert control is not None
    assert set(control.words) == {"i", "my", "when"}
    assert all(texts[place].split()[0] != f"word{place}" for place in control.test)
    assert control.words[control.test_words[0]] == texts[control.test[0]].split()[0].lower()
    assert first_words(["I was there"] * 60, sides) is None


def test_the_tables_hold_what_scikit_learn_says_of_the_predictions(
    accounts: Accounts, loaded: LoadedModel, tmp_path: Path
) -> None:
    """Beside chance, TF-IDF and shuffled labels, at each layer."""
    blocks = find_blocks(loaded.model)
    questions = ask(accounts, loaded)
    activations = read_layers(
        questions, loaded, blocks, (0, 2, 3), tmp_path, batch_tokens=2048, report=quiet
    )
    sides = split(accounts, 42)
    legible = read_probes(accounts, activations, sides, seed=42, report=quiet)
    curve = emotion_curve(accounts, sides, legible, {2: 0.5}, seed=42)
    assert curve.table.column("layer") == [0, 2, 3]
    assert curve.table.column("published") == [None, 0.5, None]
    first = curve.table.column("accuracy")[0]
    assert isinstance(first, Estimate)
    assert first.value == pytest.approx(curve.chance)  # one token in every text
    at_last = [row[-1] for row in curve.positions.rows]
    assert at_last == curve.table.column("accuracy")
    by_dimension, by_layer, _ = appraisal_tables(accounts, sides, legible, seed=42)
    true = accounts.appraisals[sides.test]
    said = legible.appraisals[legible.primary]
    for number in range(len(APPRAISALS)):
        if np.ptp(true[:, number]) == 0:
            continue
        cell, r = by_dimension.rows[number][1:3]
        assert isinstance(cell, Estimate) and isinstance(r, Estimate)
        assert cell.value == pytest.approx(r2_score(true[:, number], said[:, number]))
        assert r.value == pytest.approx(np.corrcoef(true[:, number], said[:, number])[0, 1])
    mean = by_layer.rows[legible.primary][1]
    assert isinstance(mean, Estimate)
    assert mean.value == pytest.approx(r2_score(true, said))
