"""An evaluation as text and as JSON: complete, and the same figures in both."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from emowatch.workshop.tables import as_json_object, render_evaluation
from tests.workshop.test_evaluation import LABELS, TEXTS, measured, readers, rows

WORDS = (TEXTS * 20, [0, 1, 2] * 20)
TESTED = (*WORDS, list(range(60)))
"""Texts, classes and groups."""
FIGURES = ("balanced_accuracy", "macro_f1", "ece")


def test_the_json_object_has_the_figures_of_each_layer_and_of_the_primary_one_on_top() -> None:
    """Scripts read `.balanced_accuracy` without knowing which layer is primary."""
    bank = readers()
    evaluation = measured(
        bank,
        rows(),
        texts=(*WORDS, list(range(60))),
        training_texts=(*WORDS, list(range(60))),
        shuffled=bank,
    )
    found = json.loads(json.dumps(as_json_object(bank.card, asdict(evaluation))))
    assert found["layer"] == found["primary"] == 1
    for place in (found, *found["layers"]):
        for name in FIGURES:
            low, high = place[f"{name}_interval"]
            assert low <= place[name] <= high
        assert place["n"] == 60
        assert place["chance"] == 1 / 3
        assert place["tfidf_balanced_accuracy"] == 1
        assert place["tfidf_balanced_accuracy_interval"] == [1, 1]
        assert place["shuffled_balanced_accuracy"] == place["balanced_accuracy"]
    assert [row["layer"] for row in found["layers"]] == [0, 1]
    for name in FIGURES:
        assert found[name] == found["layers"][1][name]


def test_the_table_tells_every_figure_beside_its_floors() -> None:
    """What is in the JSON is in the text too."""
    bank = readers()
    evaluation = measured(
        bank,
        rows(offsets=9),
        texts=(*WORDS, list(range(60))),
        training_texts=(*WORDS, list(range(60))),
        shuffled=bank,
        note="Made up.",
    )
    table = render_evaluation(bank.card, evaluation)
    for layer in evaluation.layers:
        for name in FIGURES:
            low, high = getattr(layer, f"{name}_interval")
            assert f"{getattr(layer, name):.3f} [{low:.3f}, {high:.3f}]" in table
    assert "n 60 examples, 540 states" in table
    assert "chance                      0.333" in table
    assert "TF-IDF + logistic regr.     1.000 [1.000, 1.000]" in table
    assert all(label in table for label in LABELS)
    assert "1*" in table
    assert "Made up." in table


def test_what_was_not_measured_is_said() -> None:
    """An empty cell could be taken for a zero."""
    bank = readers()
    table = render_evaluation(bank.card, measured(bank, rows()))
    assert "TF-IDF + logistic regr.     not measured" in table
    assert "--train-data" in table
    assert "offsets " not in table


def test_one_long_label_does_not_break_the_columns() -> None:
    """Labels come from anybody's file."""
    bank = readers()
    evaluation = measured(bank, rows())
    names = (*LABELS[:2], "a very long label of somebody's own")
    card = replace(bank.card, labels=names)
    renamed = replace(
        evaluation,
        precision=dict(zip(names, evaluation.precision.values(), strict=True)),
        recall=dict(zip(names, evaluation.recall.values(), strict=True)),
    )
    lines = render_evaluation(card, renamed).splitlines()
    starts = {line.index(" 1.000") for line in lines if line.strip().startswith(("a very", "joy"))}
    assert len(starts) == 1
