"""What tables say of made-up outcomes whose effects are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emowatch.studies.findings import Table
from emowatch.studies.notebook.accounts import APPRAISALS
from emowatch.studies.notebook.effects import (
    Scene,
    knock_out_table,
    patch_table,
    promotion_tables,
    surgery_table,
)
from emowatch.studies.notebook.interventions import RANDOM, UNTOUCHED
from emowatch.studies.notebook.outcomes import Outcomes, Reader
from emowatch.studies.notebook.resampling import Resampling
from emowatch.studies.notebook.running import Intervention
from emowatch.workshop.metrics import Estimate

LABELS = ("fear", "joy", "relief")
HOWS = ("promotion", "no removal", "random")
EMOTIONS = np.array([0, 1, 2, 0, 1, 2])
SCENE = Scene(EMOTIONS, LABELS, Resampling(np.arange(6)), ("residual",), 2)


def outcomes(changes: dict[str, torch.Tensor], told: bool = True) -> Outcomes:
    """Make outcomes of changes ``[texts, 26]`` from a state where each text is told right."""
    base = torch.zeros(6, 26)
    base[torch.arange(6), torch.from_numpy(EMOTIONS)] = 1.0
    if not told:
        base[:, :3] = torch.nan
    names = ["untouched", *changes]
    outputs = torch.stack([base, *(base + change for change in changes.values())])
    return Outcomes([Intervention(name, UNTOUCHED.pushes) for name in names], outputs, 3)


def change(column: int | None = None, size: float = 0.0, own: float = 0.0) -> torch.Tensor:
    """Change one column of all texts, and the column of each text's own word."""
    made = torch.zeros(6, 26)
    if column is not None:
        made[:, column] += size
    made[torch.arange(6), torch.from_numpy(EMOTIONS)] += own
    return made


def value(table: Table, row: int, column: str) -> float:
    """Take a figure of a table."""
    cell = table.column(column)[row]
    assert isinstance(cell, Estimate)
    return cell.value


def test_a_knock_out_is_measured_on_each_texts_own_word() -> None:
    """By site and layer, beside the random one, for word and probe apart."""
    found = outcomes(
        {
            "zero residual 0": change(own=-2),
            "random residual 0": change(own=-0.5),
            "zero residual 1": change(column=3, size=-1),
            "random residual 1": change(),
        }
    )
    table = knock_out_table(SCENE, found)
    assert value(table, 0, "word, zero") == pytest.approx(-2)
    assert value(table, 0, "word, random") == pytest.approx(-0.5)
    assert value(table, 0, "probe, zero") == 0
    assert value(table, 1, "word, zero") == 0
    assert value(table, 1, "probe, zero") == pytest.approx(-1 / 3)  # the fear probe's column


def test_a_patch_is_measured_from_the_own_word_to_the_sources() -> None:
    """And counts whose answer turned."""
    sources = np.array([1, 2, 0, 1, 2, 0])
    toward = torch.zeros(6, 26)
    toward[torch.arange(6), torch.from_numpy(sources)] = 3.0
    nothing = change()
    found = outcomes(
        {
            "patch residual 0": toward,
            "random residual 0": nothing,
            "patch residual 1": change(own=-0.25),
            "random residual 1": nothing,
        }
    )
    table = patch_table(SCENE, found, sources)
    assert value(table, 0, "word") == pytest.approx(3)
    assert (value(table, 0, "turned"), value(table, 0, "turned, random")) == (1, 0)
    assert value(table, 1, "word") == pytest.approx(0.25)


def test_an_answer_that_was_there_before_has_not_turned() -> None:
    """A model that always says the same moves for nothing that is done to it."""
    said = torch.zeros(6, 26)
    said[:, 1] = 5.0  # all texts are answered with the second label
    changes = {f"{how} {label} 1": change() for how in HOWS for label in LABELS}
    changes |= {
        f"{how} residual {start}": change() for how in ("patch", "random") for start in (0, 1)
    }
    names = ["untouched", *changes]
    same = Outcomes(
        [Intervention(name, UNTOUCHED.pushes) for name in names], said.repeat(len(names), 1, 1), 3
    )
    by_layer, _ = promotion_tables(SCENE, same, primary=1)
    assert value(by_layer, 0, "turned") == 0
    patched = patch_table(SCENE, same, np.array([1, 2, 0, 1, 2, 0]))
    assert value(patched, 0, "turned") == 0


def test_a_promoted_emotion_is_measured_on_texts_of_the_others() -> None:
    """Its own texts say it already."""
    changes: dict[str, torch.Tensor] = {}
    for how in HOWS:
        for number, label in enumerate(LABELS):
            size = {"promotion": 2.0, "no removal": 1.0, "random": 0.0}[how]
            made = change(number, size)
            made[torch.from_numpy(EMOTIONS) == number] = -9  # which must not count
            changes[f"{how} {label} 1"] = made
    by_layer, by_emotion = promotion_tables(SCENE, outcomes(changes), primary=1)
    assert value(by_layer, 0, "word") == pytest.approx(2)
    assert value(by_layer, 0, "word, no removal") == pytest.approx(1)
    assert value(by_layer, 0, "word, random") == 0
    assert (value(by_layer, 0, "turned"), value(by_layer, 0, "turned, random")) == (1, 0)
    assert [value(by_emotion, row, "word") for row in range(3)] == pytest.approx([2, 2, 2])


def test_surgery_tells_the_appraisal_from_the_others_and_from_the_emotions() -> None:
    """Half of up less down; emotions as writers rated them, or the other way round."""
    profiles = np.tile(np.array([[1.0], [3.0], [2.0]]), (1, 20))
    changes: dict[str, torch.Tensor] = {}
    for number, name in enumerate(APPRAISALS):
        for sign, turn in (("up", 1.0), ("down", -1.0)):
            held = change(6 + number, turn * 4)
            held[:, :3] += turn * torch.tensor([1.0, 3.0, 2.0])
            bare = change(6 + number, turn * 2)
            bare[:, 6:] += turn
            bare[:, :3] -= turn * torch.tensor([1.0, 3.0, 2.0])
            changes |= {f"held {name} {sign}": held, f"bare {name} {sign}": bare}
    for number in range(RANDOM):
        changes |= {f"random {number} {sign}": change(6, 1.0) for sign in ("up", "down")}
    table = surgery_table(SCENE, outcomes(changes), profiles, start=1)
    assert value(table, 3, "itself") == pytest.approx(4)
    assert value(table, 3, "others") == 0
    assert value(table, 3, "emotions r") == pytest.approx(1)
    assert value(table, 3, "others, bare") == pytest.approx(1)
    assert value(table, 3, "emotions r, bare") == pytest.approx(-1)
    assert table.column("raises most")[3] == "joy"
    assert value(table, 20, "others") == 0


def test_surgery_that_was_not_done_is_not_measured() -> None:
    """An empty cell: a push along no direction would have changed nothing."""
    done = [f"{how} {name}" for how in ("held", "bare") for name in APPRAISALS[1:]]
    done += [f"random {number}" for number in range(1, RANDOM)]
    changes = {f"{name} {sign}": change() for name in done for sign in ("up", "down")}
    table = surgery_table(SCENE, outcomes(changes), np.ones((3, 20)), start=1)
    assert table.rows[0][1:] == (None,) * 7
    assert value(table, 1, "itself") == 0
    assert [row[0] for row in table.rows[20:]] == ["random direction 2", "random direction 3"]


def test_words_that_cannot_be_told_are_not_measured() -> None:
    """An empty cell, not a number; the probe is measured all the same."""
    found = outcomes(
        {
            f"{how} residual {n}": change(column=3, size=-1)
            for how in ("zero", "random")
            for n in (0, 1)
        },
        told=False,
    )
    table = knock_out_table(SCENE, found)
    assert table.column("word, zero") == [None, None]
    assert value(table, 0, "probe, zero") == pytest.approx(-1 / 3)


def test_what_is_kept_of_an_answer_are_words_probe_and_appraisals() -> None:
    """Words among all tokens, the probe among its emotions."""
    generator = torch.Generator().manual_seed(0)
    logits, states = torch.randn(4, 50, generator=generator), torch.randn(4, 8)
    reader = Reader(
        (7, 3, 20), torch.randn(8, 3), torch.ones(3), torch.randn(8, 20), torch.ones(20)
    )
    kept = reader(logits, states)
    torch.testing.assert_close(kept[:, 1], logits.log_softmax(1)[:, 3])
    torch.testing.assert_close(kept[:, 3:6].exp().sum(1), torch.ones(4))
    torch.testing.assert_close(kept[:, 6:], states @ reader.ridge_weight + 1)
