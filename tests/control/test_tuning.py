"""The tuning file: what is read is what was written, and nothing else is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emowatch.control import Tuning
from emowatch.errors import TuningError

TUNING = Tuning(
    model="tiny",
    bank="mood",
    sha256="ab",
    label="joy",
    layer=1,
    doses=(0.0, 2.0),
    scores=(0.16, 0.5),
    slope=0.17,
    slope_interval=(0.14, 0.2),
    random_slope=-0.004,
    random_interval=(-0.02, 0.02),
    replies=40,
    tokens=900,
    kp=0.25,
    ki=1.5,
)


def test_a_tuning_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Its margin is that at the upper end of the slope's interval."""
    path = tmp_path / "governor.json"
    TUNING.save(path)
    assert Tuning.load(path) == TUNING
    assert TUNING.margin == pytest.approx(2 / ((2 * 0.25 + 1.5) * 0.2))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": 9}, "of schema 9"),
        ({"slope": float("nan")}, "not finite"),
        ({"kp": "much"}, "could not convert"),
        ({"doses": [1]}, "not enough values"),
        ({"label": None, "layer": "top"}, "invalid literal"),
    ],
)
def test_a_damaged_tuning_is_refused_with_what_to_do(
    change: dict[str, object], why: str, tmp_path: Path
) -> None:
    """Before anything is steered by it."""
    path = tmp_path / "governor.json"
    TUNING.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TuningError, match=f"{why}.*emowatch governor tune"):
        Tuning.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", "null", "[" * 100_000])
def test_what_is_no_tuning_is_refused(text: str, tmp_path: Path) -> None:
    """Whatever it is."""
    path = tmp_path / "governor.json"
    path.write_text(text)
    with pytest.raises(TuningError, match="Could not read the tuning"):
        Tuning.load(path)


def test_a_tuning_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    """And which file was looked for."""
    with pytest.raises(TuningError, match=r"none\.json.*emowatch governor tune"):
        Tuning.load(tmp_path / "none.json")
