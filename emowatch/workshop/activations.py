"""States on disk: the folder that an extraction leaves, opened again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from emowatch.errors import TrainingError
from emowatch.text import clean_line
from emowatch.workshop.locking import LOCK

MANIFEST = "manifest.json"
KEY = "key"
"""Tells whose work a folder holds; written first."""
SHARDS = "[0-9]*.safetensors"
TEMPORARY = ".part"
"""Ending of a file that is not whole yet; a killed run leaves one behind."""


class Activations:
    """States on disk, in the order of the passages they came from.

    Attributes:
        layers: layers that were read.
        passage: ``[rows]``, the number of the passage of each row.
        offset: ``[rows]``, the offset each row counts as.
        place: ``[rows]``, the number of the place within its passage.
    """

    def __init__(self, folder: Path) -> None:
        """Open a finished extraction.

        Raises:
            TrainingError: if a file of it is damaged.
        """
        try:
            self._open(folder)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise TrainingError(
                f"Could not use the states in {clean_line(str(folder))!r}: they are damaged "
                f"({clean_line(str(error), 120)}). Remove the folder and run again."
            ) from error

    def _open(self, folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self.layers: tuple[int, ...] = tuple(manifest["layers"])
        self._stored = self.layers
        self.d_model: int = manifest["d_model"]
        self._paths = [folder / name for name in manifest["shards"]]
        passage, offset, place = [], [], []
        for path in self._paths:
            with safe_open(path, framework="pt") as shard:
                # A tensor as it is given keeps the whole file in memory.
                passage.append(shard.get_tensor("passage").clone())
                offset.append(shard.get_tensor("offset").clone())
                place.append(shard.get_tensor("place").clone())
        found, places = torch.cat(passage), torch.cat(place)
        self._order = torch.argsort(found.long() * (int(places.max()) + 1) + places.long())
        self.passage = found[self._order].long()
        self.offset = torch.cat(offset)[self._order].long()
        self.place = places[self._order].long()

    def only(self, layers: Sequence[int]) -> Activations:
        """Give those of some layers, which are not read before they are asked for."""
        chosen = copy(self)
        chosen.layers = tuple(layers)
        return chosen

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.passage)

    def states(self, layers: Sequence[int] | None = None) -> Tensor:
        """Load ``[layers, rows, d_model]`` in float32 for all or some of the layers."""
        wanted = self.layers if layers is None else tuple(layers)
        result = torch.empty(len(wanted), len(self), self.d_model)
        back = torch.empty_like(self._order)
        back[self._order] = torch.arange(len(self))
        first = 0
        for path in self._paths:
            with safe_open(path, framework="pt") as shard:
                part = shard.get_slice("states")
                rows = part.get_shape()[1]
                target = back[first : first + rows]
                for slot, layer in enumerate(wanted):
                    place = self._stored.index(layer)
                    result[slot, target] = part[place : place + 1][0].float()
                first += rows
        return result


def discard(folder: Path) -> None:
    """Remove an extraction, and its folder if nothing else is in it; never anybody's file."""
    if not (folder / KEY).exists():
        return
    parts = folder.glob(f"*{TEMPORARY}")
    for path in [*folder.glob(SHARDS), *parts, folder / MANIFEST, folder / LOCK, folder / KEY]:
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
