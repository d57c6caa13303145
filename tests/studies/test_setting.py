"""Texts to learn from and to be measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emowatch.errors import CorpusError, UsageError
from emowatch.studies.findings import Findings
from emowatch.studies.geometry import study_geometry
from emowatch.studies.layers import study_layers
from emowatch.studies.persistence import study_persistence
from emowatch.studies.setting import Setting, open_texts
from emowatch.workshop.corpora import split_by_group
from tests.workshop.synthetic import WORDS, write_texts


def test_without_a_test_set_a_tenth_of_the_groups_is_held_out(tmp_path: Path) -> None:
    """No group is on both sides, and neither side passes for the file."""
    path = write_texts(tmp_path / "all.tsv", per_class=200)
    learned, held = open_texts(str(path), None, seed=0)
    assert not {e.group for e in learned.examples} & {e.group for e in held.examples}
    assert 0.85 < len(learned) / 600 < 0.95
    assert len({learned.sha256, held.sha256, open_texts(str(path), None, seed=1)[0].sha256}) == 3


def test_what_is_held_out_leaves_training_its_validation(tmp_path: Path) -> None:
    """Both are drawn by the same seed; the same draw would leave one group to validate on."""
    path = write_texts(tmp_path / "all.tsv", per_class=200)
    learned, _ = open_texts(str(path), None, seed=0)
    sides = split_by_group(
        [e.group for e in learned.examples], fractions={"train": 0.9, "validation": 0.1}, seed=0
    )
    assert 0.05 < len(sides["validation"]) / len(learned) < 0.15


def test_texts_that_are_measured_on_are_classes_of_equal_size(tmp_path: Path) -> None:
    """As in paper A; and the labels are those of the training."""
    path = write_texts(tmp_path / "train.tsv")
    uneven = write_texts(tmp_path / "one.tsv", per_class=13, seed=1).read_text().splitlines()
    (tmp_path / "test.tsv").write_text("\n".join(uneven[:-2]), encoding="utf-8")
    learned, held = open_texts(str(path), str(tmp_path / "test.tsv"), seed=0)
    assert held.labels == learned.labels == tuple(WORDS)
    assert set(Counter(e.label for e in held.examples).values()) == {12}


def test_a_label_of_which_too_few_are_left_to_measure_on_is_refused(tmp_path: Path) -> None:
    """One text right of one is no accuracy of 1, and a label that is not there has none."""
    path = write_texts(tmp_path / "train.tsv", per_class=30)
    lines = write_texts(tmp_path / "all.tsv", per_class=12, seed=1).read_text().splitlines()
    joys = [line for line in lines if line.endswith("\tjoy")]
    test = tmp_path / "test.tsv"
    for count in (0, 9):
        kept = [line for line in lines if line not in joys[count:]]
        test.write_text("\n".join(kept) + "\n", encoding="utf-8")
        with pytest.raises(CorpusError, match=f"needs 10 texts, and there are only joy {count}\\."):
            open_texts(str(path), str(test), seed=0)
    with pytest.raises(CorpusError, match=r"Name texts to measure on with --test.*--limit is 60"):
        open_texts(str(path), None, seed=0, limit=60)


def test_texts_that_training_has_are_not_measured_on(tmp_path: Path) -> None:
    """They would be known by heart; how many there were is told."""
    rows = write_texts(tmp_path / "train.tsv", per_class=30).read_text().splitlines()
    fresh = write_texts(tmp_path / "fresh.tsv", per_class=20, seed=1).read_text().splitlines()
    mixed = tmp_path / "mixed.tsv"
    mixed.write_text("\n".join([*fresh, *rows[1:8]]) + "\n", encoding="utf-8")
    learned, held = open_texts(str(tmp_path / "train.tsv"), str(mixed), seed=0)
    assert not {e.group for e in learned.examples} & {e.group for e in held.examples}
    assert len(held) == 60
    assert held.source.endswith("mixed.tsv (less 7 that training has)")


def test_a_test_set_that_is_the_training_is_refused(tmp_path: Path) -> None:
    """There is nothing left to measure on."""
    path = str(write_texts(tmp_path / "train.tsv", per_class=30))
    with pytest.raises(CorpusError, match="all of its 90 texts are among those to learn from"):
        open_texts(path, path, seed=0)


def test_a_limit_is_of_the_training_alone(tmp_path: Path) -> None:
    """What is measured on is small enough."""
    path = write_texts(tmp_path / "train.tsv", per_class=30)
    test = write_texts(tmp_path / "test.tsv", per_class=20, seed=1)
    learned, held = open_texts(str(path), str(test), seed=0, limit=45)
    assert (len(learned), len(held)) == (45, 60)


@pytest.mark.parametrize("study", [study_layers, study_geometry, study_persistence])
def test_every_study_of_templated_text_refuses_one_before_it_reads(
    setting: Setting, study: Callable[[Setting], Findings]
) -> None:
    """Nothing is written."""
    setting.loaded.tokenizer.chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        study(setting)
    assert not setting.work.exists()


def test_a_model_without_a_template_is_refused_in_words(setting: Setting) -> None:
    """Base models have none; their texts can be read as they are."""
    setting.loaded.tokenizer.chat_template = None
    with pytest.raises(UsageError, match=r"'tiny' has no chat template.*--no-template"):
        setting.require_template()
    replace(setting, template=False).require_template()
