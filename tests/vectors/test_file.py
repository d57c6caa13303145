"""The file of directions: what is read is what was written, and nothing damaged is used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from emowatch.errors import VectorsError
from emowatch.vectors import Vectors
from emowatch.vectors.file import HEADER, unit

RNG = np.random.default_rng(0)


def make(labels: tuple[str, ...] = ("calm", "joy"), layers: tuple[int, ...] = (2, 4)) -> Vectors:
    """Draw vectors of width 8."""
    return Vectors(
        labels=labels,
        layers=layers,
        directions=unit(RNG.normal(size=(len(layers), len(labels), 8)).astype(np.float32)),
        rms=np.array([1.5] * len(layers), dtype=np.float32),
        model="tiny",
        method="of a test",
        data={"source": "somewhere", "agreement": [[0.9, 0.8], [0.7, 0.6]]},
    )


def test_vectors_are_read_as_they_were_written(tmp_path: Path) -> None:
    """All of it, and no other file is left."""
    made = make()
    made.save(tmp_path / "v.safetensors")
    found = Vectors.load(tmp_path / "v.safetensors")
    assert replace(found, directions=made.directions, rms=made.rms).__repr__() == repr(made)
    assert np.array_equal(found.directions, made.directions)
    assert np.array_equal(found.rms, made.rms)
    assert [path.name for path in tmp_path.iterdir()] == ["v.safetensors"]


def test_a_direction_is_found_by_label_and_layer() -> None:
    """What is not there is named, with what is."""
    made = make()
    assert np.array_equal(made.direction("joy", 4), made.directions[1, 1])
    assert made.name_of("joy", 4).startswith("sha256:")
    with pytest.raises(VectorsError, match="no label 'fear'; they have calm, joy"):
        made.direction("fear", 4)
    with pytest.raises(VectorsError, match="no layer '3'; they have 2, 4"):
        made.direction("joy", 3)


def written(path: Path, header: Any = None, **tensors: np.ndarray) -> Path:
    """Write a file whose header or tensors are changed."""
    made = make()
    known = {
        "schema": 1,
        "labels": ["calm", "joy"],
        "layers": [2, 4],
        "model": "tiny",
        "method": "x",
        "data": {},
    }
    text = header if isinstance(header, str) else json.dumps(known | (header or {}))
    save_file({"directions": made.directions, "rms": made.rms} | tensors, path, {HEADER: text})
    return path


@pytest.mark.parametrize(
    ("header", "tensors", "why"),
    [
        ({"schema": 2}, {}, "of schema 2"),
        ({"labels": ["joy", "joy"]}, {}, "labels must be distinct"),
        ({"labels": ["a\u202eb", "joy"]}, {}, "unprintable"),
        ({"layers": [2, 2]}, {}, r"its layers are \(2, 2\)"),
        ({"layers": [-1, 2]}, {}, "its layers are"),
        ({"layers": []}, {}, "its layers are"),
        ({"layers": [1, 2, 3]}, {}, "its tensors are of shapes"),
        ("[" * 50_000, {}, ""),
        ("{}", {}, "schema"),
        ("null", {}, ""),
        (None, {"directions": np.ones((2, 2, 8), np.float32)}, "not all of length 1"),
        (None, {"directions": np.full((2, 2, 8), np.nan, np.float32)}, "not all of length 1"),
        (None, {"directions": np.ones((2, 2, 8), np.float64)}, "float64"),
        (None, {"rms": np.ones(3, np.float32)}, "of shapes"),
    ],
    ids=str,
)
def test_a_damaged_or_hostile_file_is_refused(
    header: Any, tensors: dict[str, np.ndarray], why: str, tmp_path: Path
) -> None:
    """Before a direction is used."""
    path = written(tmp_path / "v.safetensors", header, **tensors)
    with pytest.raises(VectorsError, match=f"Could not read the vectors.*{why}"):
        Vectors.load(path)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    """Nothing, a folder, a text, and a bank."""
    (tmp_path / "text").write_text("hello")
    save_file({"x": np.ones(2, np.float32)}, tmp_path / "other.safetensors")
    for name in ("none", ".", "text", "other.safetensors"):
        with pytest.raises(VectorsError, match="Could not read the vectors"):
            Vectors.load(tmp_path / name)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_file_with_changed_bytes_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Never anything else."""
    path = tmp_path_factory.mktemp("fuzz") / "v.safetensors"
    make().save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        found = Vectors.load(path)
    except VectorsError:
        return
    assert np.isfinite(found.directions).all()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """And nothing is left of it."""
    with pytest.raises(VectorsError, match="Could not write the vectors"):
        make().save(tmp_path / "none" / "v.safetensors")


@pytest.mark.parametrize("values", [np.zeros((1, 4)), np.array([[1.0, np.nan]])])
def test_what_has_no_direction_is_refused(values: np.ndarray) -> None:
    """It would steer nowhere, or everywhere."""
    with pytest.raises(VectorsError, match="no length, or with numbers that are not finite"):
        unit(values.astype(np.float32))
