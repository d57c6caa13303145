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
from emowatch.studies.notebook.accounts import APPRAISALS, Accounts
from emowatch.studies.notebook.curves import appraisal_tables, emotion_curve
from emowatch.studies.notebook.probes import first_words, read_probes, split
from emowatch.studies.notebook.states import ask, read_layers
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
    with pytest.raises(StudyError, match="none of those to"):
        split(replace(accounts, emotions=rare), 42)


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
