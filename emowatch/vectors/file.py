"""Named directions for several layers, and their file.

The file is safetensors: a tensor ``directions`` ``[layers, labels, d_model]`` and ``rms``
``[layers]``, with everything else as one JSON string in the header. Knows no model and no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emowatch.errors import VectorsError
from emowatch.labels import check_labels
from emowatch.records import Floats
from emowatch.text import clean_line

HEADER = "emowatch_vectors"
SCHEMA = 1
SUFFIX = ".safetensors"
MAX_BYTES = 1 << 30
"""Of a file; 171 emotions at all layers of a model of width 4,096 take a tenth of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vectors:
    """Directions of length 1 by layer and label."""

    labels: tuple[str, ...]
    layers: tuple[int, ...]
    directions: Floats
    """``[layers, labels, d_model]``."""
    rms: Floats
    """``[layers]``: mean RMS of the states that they were made from, which a strength is in units
    of; NaN where it is not known."""
    model: str
    """What the model was called; empty where it is not known."""
    method: str
    """How they were made, in words."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Where from: source, hash, licence, counts by label, agreement of two halves."""

    @property
    def d_model(self) -> int:
        """Width of the model's residual."""
        return int(self.directions.shape[2])

    def direction(self, label: str, layer: int) -> Floats:
        """Give one direction ``[d_model]``.

        Raises:
            VectorsError: if there is no such label or layer; it lists those that there are.
        """
        for kind, wanted, known in (
            ("label", label, self.labels),
            ("layer", layer, self.layers),
        ):
            if wanted not in known:
                raise VectorsError(
                    f"These vectors have no {kind} {clean_line(str(wanted))!r}; they have "
                    f"{', '.join(clean_line(str(one)) for one in known)}."
                )
        found: Floats = self.directions[self.layers.index(layer), self.labels.index(label)]
        return found

    def at(self, layers: Sequence[int]) -> Floats:
        """Give all directions of some layers ``[layers, labels, d_model]``.

        Raises:
            VectorsError: for a layer that is not there; it lists those that there are.
        """
        missing = [layer for layer in layers if layer not in self.layers]
        if missing:
            raise VectorsError(
                f"These vectors have no layer {', '.join(map(str, missing))}; they have "
                f"{', '.join(map(str, self.layers))}. Name some of them with --layers."
            )
        found: Floats = self.directions[[self.layers.index(layer) for layer in layers]]
        return found

    def name_of(self, label: str, layer: int) -> str:
        """Name a direction as traces do, by the hash of its numbers."""
        values = np.ascontiguousarray(self.direction(label, layer), dtype=np.float32)
        return f"sha256:{hashlib.sha256(values.tobytes()).hexdigest()[:12]}"

    def save(self, path: Path) -> None:
        """Write them.

        Raises:
            VectorsError: if the file cannot be written.
        """
        header = {
            "schema": SCHEMA,
            "labels": self.labels,
            "layers": self.layers,
            "model": self.model,
            "method": self.method,
            "data": dict(self.data),
        }
        tensors = {
            "directions": np.ascontiguousarray(self.directions, dtype=np.float32),
            "rms": np.ascontiguousarray(self.rms, dtype=np.float32),
        }
        part = path.with_name(f"{path.name}.part")
        try:
            save_file(tensors, part, {HEADER: json.dumps(header, ensure_ascii=True)})
            part.replace(path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise VectorsError(
                f"Could not write the vectors {clean_line(str(path))!r}: {why}."
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Vectors:
        """Read them, and check all of it before any is used.

        Raises:
            VectorsError: if there is no such file, or it is damaged or something else.
        """
        place, shown = Path(path).expanduser(), clean_line(str(path))
        try:
            if place.stat().st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
            with safe_open(place, framework="numpy") as file:
                text = (file.metadata() or {}).get(HEADER)
                if text is None:
                    raise ValueError("it has no header of emowatch")
                tensors = {name: file.get_tensor(name) for name in ("directions", "rms")}
                return _checked(json.loads(text), tensors)
        except OSError as error:
            raise VectorsError(
                f"Could not read the vectors {shown!r}: {error.strerror or error}."
            ) from error
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise VectorsError(
                f"Could not read the vectors {shown!r}: {clean_line(str(error), 120)}. Such files "
                "are written by `emowatch vectors build` and `import`."
            ) from error


def unit(values: Floats) -> Floats:
    """Give vectors ``[…, d_model]`` the length 1.

    Raises:
        VectorsError: for what is no number or has no length.
    """
    lengths = np.linalg.norm(values.astype(np.float64), axis=-1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise VectorsError(
            "Could not use a direction of no length, or with numbers that are not finite."
        )
    scaled: Floats = (values / lengths).astype(np.float32)
    return scaled


def _checked(header: Any, tensors: Mapping[str, Any]) -> Vectors:
    if header["schema"] != SCHEMA:
        raise ValueError(f"it is of schema {header['schema']!r}, and this version reads {SCHEMA}")
    labels = check_labels(header["labels"])
    layers = tuple(int(layer) for layer in header["layers"])
    if not layers or min(layers) < 0 or len(set(layers)) < len(layers):
        raise ValueError(f"its layers are {layers}")
    directions, rms = tensors["directions"], tensors["rms"]
    shape = (len(layers), len(labels))
    if directions.ndim != 3 or directions.shape[:2] != shape or rms.shape != shape[:1]:
        raise ValueError(f"its tensors are of shapes {directions.shape} and {rms.shape}")
    if directions.dtype != np.float32 or rms.dtype != np.float32:
        raise ValueError(f"its tensors are {directions.dtype} and {rms.dtype}, not float32")
    lengths = np.linalg.norm(directions, axis=-1)
    if not np.allclose(lengths, 1, atol=1e-3):  # also where one is NaN
        raise ValueError("its directions are not all of length 1")
    return Vectors(
        labels=labels,
        layers=layers,
        directions=directions,
        rms=rms,
        model=str(header["model"]),
        method=str(header["method"]),
        data=dict(header["data"]),
    )
