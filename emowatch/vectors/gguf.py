"""Control vectors of llama.cpp: write one direction for it, read one of others.

``direction.K`` is added to the output of its block ``K``, counted from 0, which is our layer
``K + 1``; there is none for ``K = 0``. It is added as it is, whatever the state's length, where
emowatch adds in units of each state's RMS. So a direction is written times a strength and the
layer's mean RMS.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from emowatch.errors import VectorsError
from emowatch.text import clean_line
from emowatch.vectors.file import Vectors, unit

ARCHITECTURE = "controlvector"
_TENSOR = re.compile(r"direction\.([0-9]{1,4})")


def export_gguf(
    vectors: Vectors, label: str, layers: tuple[int, ...], strength: float, path: Path, hint: str
) -> None:
    """Write one label's directions as a control vector.

    Args:
        vectors: where they are.
        label: which.
        layers: at which layers, from 2 on.
        strength: in units of the residual's RMS; llama.cpp adds that at a scale of 1.
        path: the file.
        hint: what llama.cpp calls the architecture, such as ``llama`` or ``qwen3``.

    Raises:
        VectorsError: for an unknown label or layer, a layer that llama.cpp has none for, or
            vectors whose RMS is not known.
    """
    writer_of = _library().GGUFWriter
    if low := [layer for layer in layers if layer < 2]:
        raise VectorsError(
            f"Could not export layer {low[0]}: llama.cpp adds behind its second block at the "
            "earliest, which is layer 2."
        )
    scaled = {}
    for layer in layers:
        direction = vectors.direction(label, layer)
        rms = float(vectors.rms[vectors.layers.index(layer)])
        if not np.isfinite(rms):
            raise VectorsError(
                f"Could not export layer {layer}: these vectors do not say how long the model's "
                "states are there. Build them with `emowatch vectors build`."
            )
        scaled[layer] = (direction * (strength * rms)).astype(np.float32)
    writer = writer_of(str(path), ARCHITECTURE)
    writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(scaled))
    for layer, values in scaled.items():
        writer.add_tensor(f"direction.{layer - 1}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def import_gguf(path: Path, label: str) -> Vectors:
    """Read a control vector, of llama.cpp, repeng or emowatch, as directions of one label.

    Raises:
        VectorsError: if it is none, or holds what is no direction.
    """
    shown = clean_line(str(path))
    try:
        reader = _library().GGUFReader(path)
        found = {
            int(match[1]) + 1: np.array(tensor.data, dtype=np.float32).ravel()
            for tensor in reader.tensors
            if (match := _TENSOR.fullmatch(tensor.name))
        }
        field = reader.fields.get("controlvector.model_hint")
        hint = "" if field is None else str(field.contents())
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise VectorsError(
            f"Could not read {shown!r} as a GGUF file, or it is cut off: "
            f"{clean_line(str(error), 120)}."
        ) from error
    widths = {len(values) for values in found.values()}
    if len(widths) != 1:
        raise VectorsError(
            f"Could not import {shown!r}: it holds "
            + ("directions of several widths." if found else "no tensor named direction.N.")
        )
    layers = tuple(sorted(found))
    return Vectors(
        labels=(label,),
        layers=layers,
        directions=unit(np.stack([found[layer] for layer in layers])[:, None]),
        rms=np.full(len(layers), np.nan, dtype=np.float32),
        model=clean_line(hint, 60),
        method="imported from a GGUF control vector",
    )


def _library() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise VectorsError('GGUF files need gguf: pip install "emowatch[gguf]"') from error
    return gguf
