"""The study of geometry: planes, contours, confusion."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from emowatch.errors import StudyError
from emowatch.studies import geometry, separation
from emowatch.studies.folder import write_findings
from emowatch.studies.geometry import Doubles, Ints, lay_out, study_geometry
from emowatch.studies.planes import density_of, draw_planes, shape_of
from emowatch.studies.separation import Separation
from emowatch.studies.setting import Setting

LABELS = np.arange(90) % 3


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separation, "RESAMPLES", 50)
    monkeypatch.setattr(separation, "PERMUTATIONS", 10)


def scores(sure: float = 4.0, seed: int = 0) -> np.ndarray:
    """Make probabilities of three labels that mostly fit."""
    logits = np.random.default_rng(seed).normal(size=(90, 3))
    logits[np.arange(90), LABELS] += sure
    shares = np.exp(logits)
    found: np.ndarray = shares / shares.sum(1, keepdims=True)
    return found


def test_a_plane_holds_the_most_of_the_variance_that_two_axes_can() -> None:
    """Probabilities of three labels lie on a plane already."""
    found = lay_out(1, scores(), LABELS, np.arange(90))
    assert found.explained.sum() == pytest.approx(1)
    assert found.points.shape == (90, 2)
    assert found.points.mean(0) == pytest.approx([0, 0], abs=1e-9)
    assert found.axes @ found.axes.T == pytest.approx(np.eye(2), abs=1e-9)


def test_an_axis_has_the_sign_of_its_largest_part() -> None:
    """A plane that is mirrored from run to run could not be compared."""
    for seed in range(5):
        axes = lay_out(1, scores(seed=seed), LABELS, np.arange(90)).axes
        assert (axes[np.arange(2), np.abs(axes).argmax(1)] > 0).all()


def test_the_confusion_counts_each_text_once() -> None:
    """Rows are true labels."""
    values = scores()
    found = lay_out(1, values, LABELS, np.arange(90)).confusion
    assert found.sum(1).tolist() == [30, 30, 30]
    assert np.trace(found) == (values.argmax(1) == LABELS).sum()


def test_a_density_is_highest_where_the_points_are() -> None:
    """Contours are shares of that peak."""
    points = np.random.default_rng(0).normal(size=(200, 2)) + 5
    across, up = np.meshgrid(np.linspace(0, 10, 41), np.linspace(0, 10, 41))
    density = density_of(points, (across, up))
    assert density is not None
    row, column = np.unravel_index(density.argmax(), density.shape)
    assert across[row, column] == pytest.approx(5, abs=0.6)
    assert up[row, column] == pytest.approx(5, abs=0.6)


def test_points_on_a_line_have_no_density() -> None:
    """Two labels give such scores; they are drawn as points alone."""
    line = np.stack([np.arange(9.0), np.arange(9.0)], 1)
    assert density_of(line, (np.zeros((2, 2)), np.zeros((2, 2)))) is None


def test_the_study_draws_the_plane_and_the_matrix(setting: Setting, tmp_path: Path) -> None:
    """Primary layer and quarters of the depth; layer 0 is one point and left out."""
    found = study_geometry(replace(setting, head="linear"))
    apart, neighbours, confusion = found.tables
    assert apart.column("layer") == [1, 2, 3]
    assert neighbours.column("label") == list(setting.train.labels)
    assert sum(int(str(cell)) for row in confusion.rows for cell in row[1:]) == 36
    write_findings(found, tmp_path)
    drawn = (tmp_path / "plane.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"layer (\d)", drawn)) == {str(n) for n in apart.column("layer")}
    assert (tmp_path / "matrix.png").stat().st_size > 1000


def test_the_intervals_are_of_groups_of_texts(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two texts of one author are not two witnesses."""
    pairs = tuple(
        replace(example, group=f"author {number // 2}")
        for number, example in enumerate(setting.test.examples)
    )
    given: list[list[int]] = []

    def separation_of(points: Doubles, labels: Ints, groups: list[int], *, seed: int) -> Separation:
        given.append(groups)
        return separation.separation(points, labels, groups, seed=seed)

    monkeypatch.setattr(geometry, "separation", separation_of)
    test = replace(setting.test, examples=pairs)
    study_geometry(replace(setting, head="linear", test=test))
    assert given and all(groups == [n // 2 for n in range(36)] for groups in given)


def test_texts_that_all_score_the_same_are_refused(setting: Setting) -> None:
    """Layer 0 alone has nothing to show."""
    with pytest.raises(StudyError, match="all 36 texts have the same scores"):
        study_geometry(replace(setting, head="linear", layers="0"))


def test_lines_are_drawn_at_a_quarter_and_half_of_each_peak() -> None:
    """As paper A has it, of each class by itself."""
    from matplotlib.contour import ContourSet
    from matplotlib.figure import Figure

    layout = lay_out(1, scores(), LABELS, np.arange(90))
    canvas = Figure()
    draw_planes(canvas, layouts=[layout], labels=LABELS, names=("anger", "fear", "joy"))
    drawn = [one for one in canvas.axes[0].get_children() if isinstance(one, ContourSet)]
    assert len(drawn) == 3
    for label, lines in enumerate(drawn):
        x, y = (
            axis.ravel() for axis in np.meshgrid(np.linspace(-2, 2, 400), np.linspace(-2, 2, 400))
        )
        kernels = gaussian_kde(layout.points[LABELS == label].T)
        peak = kernels(np.stack([x, y])).max()
        assert lines.levels / peak == pytest.approx([0.25, 0.5], rel=0.03)


@pytest.mark.parametrize(
    ("panels", "shape"),
    [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (9, (3, 3))],
)
def test_few_places_stay_empty(panels: int, shape: tuple[int, int]) -> None:
    """Four stand two by two."""
    assert shape_of(panels) == shape
