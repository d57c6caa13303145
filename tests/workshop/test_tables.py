"""An evaluation as text and as JSON: complete, and the same figures in both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from emowatch.labels import EKMAN7
from emowatch.workshop.tables import as_json_object, render_evaluation
from tests.workshop.test_evaluation import LABELS, TEXTS, measured, readers, rows

WORDS = (TEXTS * 20, [0, 1, 2] * 20)
TESTED = (*WORDS, list(range(60)))
"""Texts, classes and groups."""
FIGURES = ("balanced_accuracy", "macro_f1", "ece")
EMOTIONS = tuple(
    "admiration amusement anger annoyance approval caring confusion curiosity desire "
    "disappointment disapproval disgust embarrassment excitement fear gratitude grief joy love "
    "nervousness neutral optimism pride realization relief remorse sadness surprise".split()
)
"""The longest list in use, that of GoEmotions."""


def with_labels(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """Lay out an evaluation with these labels and this confusion matrix."""
    bank = readers()
    figures = dict.fromkeys(names, 0.5)
    evaluation = replace(
        measured(bank, rows(offsets=9), shuffled=bank),
        confusion=tuple(map(tuple, confusion)),
        precision=figures,
        precision_interval=dict.fromkeys(names, (0.4, 0.6)),
        recall=figures,
        recall_interval=dict.fromkeys(names, (0.4, 0.6)),
    )
    return render_evaluation(replace(bank.card, labels=tuple(names)), evaluation).splitlines()


def test_the_json_object_has_the_figures_of_each_layer_and_of_the_primary_one_on_top() -> None:
    """Scripts read `.balanced_accuracy` without knowing which layer is primary."""
    bank = readers()
    evaluation = measured(
        bank,
        rows(),
        texts=(*WORDS, list(range(60))),
        training_texts=WORDS,
        shuffled=bank,
    )
    found = json.loads(json.dumps(as_json_object(bank.card, asdict(evaluation))))
    assert found["layer"] == found["primary"] == 1
    assert found["labels"] == list(LABELS)  # of the rows and columns of the confusion matrix
    assert list(found["recall_interval"]) == list(LABELS)
    for place in (found, *found["layers"]):
        for name in FIGURES:
            low, high = place[f"{name}_interval"]
            assert low <= place[name] <= high
        assert place["n"] == 60
        assert place["chance"] == 1 / 3
        assert place["tfidf_balanced_accuracy"] == 1
        assert place["tfidf_balanced_accuracy_interval"] == [1, 1]
        assert place["shuffled_balanced_accuracy"] == place["balanced_accuracy"]
        interval = place["shuffled_balanced_accuracy_interval"]
        assert interval == place["balanced_accuracy_interval"]
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
        training_texts=WORDS,
        shuffled=bank,
        note="Made up.",
    )
    table = render_evaluation(bank.card, evaluation)
    for layer in evaluation.layers:
        for name in (*FIGURES, "shuffled_balanced_accuracy"):
            low, high = getattr(layer, f"{name}_interval")
            assert f"{getattr(layer, name):.3f} [{low:.3f}, {high:.3f}]" in table
    assert "n 60 examples, 540 states" in table
    assert "chance                      0.333" in table
    assert "TF-IDF + logistic regr.     1.000 [1.000, 1.000]" in table
    for label in LABELS:
        for shares in ("precision", "recall"):
            low, high = getattr(evaluation, f"{shares}_interval")[label]
            assert f"{getattr(evaluation, shares)[label]:.3f} [{low:.3f}, {high:.3f}]" in table
    (part,) = evaluation.by_offset
    low, high = part.ece_interval or (0, 0)
    assert table.splitlines()[-5].endswith(f"{part.ece:.3f} [{low:.3f}, {high:.3f}]")
    assert "1*" in table
    assert "Made up." in table


def test_what_was_not_measured_is_said() -> None:
    """An empty cell could be taken for a zero."""
    bank = readers()
    table = render_evaluation(bank.card, measured(bank, rows()))
    assert "TF-IDF + logistic regr.     not measured" in table
    assert "--train-data" in table
    assert table.count(" not measured") == 1 + len(bank.card.layers)  # TF-IDF, shuffled labels
    assert "offsets " not in table


def test_a_bank_at_chance_is_said_to_be_worth_nothing() -> None:
    """Two rows of figures must be compared to see it otherwise."""
    bank = readers()
    evaluation = measured(bank, rows())
    remark = "not told apart from chance"
    assert remark not in render_evaluation(bank.card, evaluation)
    worthless = tuple(
        replace(row, balanced_accuracy=0.35, balanced_accuracy_interval=(0.3, 0.4))
        for row in evaluation.layers
    )
    table = render_evaluation(bank.card, replace(evaluation, layers=worthless))
    assert table.count(remark) == 1


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
    shares = [line for line in lines if line.startswith(("  a very long label o…", "  joy "))]
    starts = {line.index(" 1.000") for line in shares if "1.000" in line}
    assert (len(shares), len(starts)) == (4, 1)  # one more of each in the confusion matrix
    assert max(map(len, lines)) <= 80


def test_the_confusion_matrix_names_its_rows_and_columns_within_80_columns() -> None:
    """Which of two labels is the true one is the first question that a matrix raises."""
    confusion = [[1000 * row + column for column in range(7)] for row in range(7)]
    lines = with_labels(EKMAN7, confusion)
    place = next(n for n, line in enumerate(lines) if "predicted" in line)
    assert lines[place].split() == ["true", "\\", "predicted", *EKMAN7]
    for label, counts, line in zip(EKMAN7, confusion, lines[place + 1 :], strict=False):
        assert line.split() == [label, *map(str, counts)]
        for name, count in zip(EKMAN7, counts, strict=True):  # each under its column's name
            end = lines[place].index(f" {name}", 16) + len(f" {name}")
            assert line[:end].endswith(f" {count}")
    assert max(map(len, lines)) <= 80


def test_a_matrix_too_wide_is_told_label_by_label() -> None:
    """28 columns fit no terminal: each label with what it is taken for, most often first."""
    confusion = [[(row * 5 + column * 3) % 4 for column in range(28)] for row in range(28)]
    confusion[3] = [0] * 28
    confusion[3][3], confusion[3][0], confusion[3][5] = 17, 2, 4
    confusion[7] = [0] * 28
    lines = with_labels(EMOTIONS, confusion)
    assert max(map(len, lines)) <= 80
    start = next(n for n, line in enumerate(lines) if line.endswith("taken for"))
    assert "these 28 labels is too wide" in lines[start - 1]
    told = {line.split()[0]: line for line in lines[start + 1 : start + 29]}
    assert list(told) == list(EMOTIONS)
    assert told["annoyance"].endswith(" 17/23  caring 4, admiration 2")
    assert told["curiosity"].split()[1:] == ["0/0"]
    for row, line in enumerate(told.values()):
        right, total = map(int, line.split()[1].split("/"))
        assert (right, total) == (confusion[row][row], sum(confusion[row]))
        if total > right:
            named = [int(part.split()[-1]) for part in line.split("  ")[-1].split(",")]
            assert sum(named) == total - right  # with the others
            assert len(named) >= 2
