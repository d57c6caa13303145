"""Control vectors of llama.cpp, written and read with llama.cpp's own library."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from emowatch.errors import VectorsError
from emowatch.vectors import Vectors
from emowatch.vectors.gguf import export_gguf, import_gguf
from tests.vectors.test_file import make


def test_what_is_exported_is_a_control_vector(tmp_path: Path) -> None:
    """Layer 4 is added behind block 3, in the length that the strength means there."""
    made, path = make(), tmp_path / "joy.gguf"
    export_gguf(made, "joy", (2, 4), 3.0, path, "qwen3")
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "qwen3"
    assert fields["controlvector.layer_count"] == 2
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert sorted(tensors) == ["direction.1", "direction.3"]
    np.testing.assert_allclose(tensors["direction.3"], made.direction("joy", 4) * 4.5, rtol=1e-6)


def test_what_was_exported_is_imported_as_it_was(tmp_path: Path) -> None:
    """Its length is given up: a strength is in units of the model's own states."""
    made, path = make(), tmp_path / "joy.gguf"
    export_gguf(made, "joy", (2, 4), -2.0, path, "llama")
    found = import_gguf(path, "gloom")
    assert (found.labels, found.layers, found.model) == (("gloom",), (2, 4), "llama")
    for layer in (2, 4):
        np.testing.assert_allclose(
            found.direction("gloom", layer), -made.direction("joy", layer), atol=1e-6
        )
    assert np.isnan(found.rms).all()
    found.save(tmp_path / "v.safetensors")
    assert np.isnan(Vectors.load(tmp_path / "v.safetensors").rms).all()
    with pytest.raises(VectorsError, match="do not say how long"):
        export_gguf(found, "gloom", (2,), 1.0, tmp_path / "again.gguf", "llama")


def test_layers_that_llama_cpp_has_no_place_for_are_refused(tmp_path: Path) -> None:
    """It knows no direction.0."""
    made = make(layers=(1, 2))
    with pytest.raises(VectorsError, match="behind its second block"):
        export_gguf(made, "joy", (1,), 1.0, tmp_path / "x.gguf", "llama")
    assert not (tmp_path / "x.gguf").exists()


def test_what_is_no_control_vector_is_refused(tmp_path: Path) -> None:
    """A text, a model's file, and directions without a length."""
    (tmp_path / "text.gguf").write_bytes(b"not a GGUF file" * 20)
    with pytest.raises(VectorsError, match="as a GGUF file"):
        import_gguf(tmp_path / "text.gguf", "joy")
    with pytest.raises(VectorsError, match="as a GGUF file"):
        import_gguf(tmp_path / "none.gguf", "joy")
    export_gguf(make(layers=(2,)), "joy", (2,), 1.0, tmp_path / "whole.gguf", "llama")
    whole = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) - 16])
    with pytest.raises(VectorsError, match="or it is cut off"):
        import_gguf(tmp_path / "half.gguf", "joy")
    for name, tensors, why in (
        ("other", {"blk.0.attn": np.ones(8, np.float32)}, "no tensor named direction"),
        ("zero", {"direction.1": np.zeros(8, np.float32)}, "no length"),
        (
            "mixed",
            {"direction.1": np.ones(8, np.float32), "direction.2": np.ones(4, np.float32)},
            "several widths",
        ),
    ):
        path = tmp_path / f"{name}.gguf"
        writer = gguf.GGUFWriter(str(path), "controlvector")
        for key, values in tensors.items():
            writer.add_tensor(key, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(VectorsError, match=why):
            import_gguf(path, "joy")


def test_without_the_library_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(VectorsError, match=r'pip install "emowatch\[gguf\]"'):
        import_gguf(tmp_path / "x.gguf", "joy")
