"""Score one forward with every bank and bring the scores to the host.

Knows states and heads, not rows or turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emowatch.bank import ProbeBank
from emowatch.bank.distance import StateDistance
from emowatch.bank.heads import Heads
from emowatch.errors import UnsupportedError
from emowatch.records import Floats


@dataclass(slots=True)
class Reader:
    """How one bank takes its part of what the tap reads."""

    layers: tuple[int, ...]
    primary: int
    """Place of the primary layer in `layers`."""
    heads: Heads
    slots: tuple[int, ...]
    """Places of `layers` among the tap's states."""
    distance: StateDistance | None = None
    """Measures the states of the primary layer, where the bank can abstain."""

    def score(self, states: Sequence[Tensor], offset: int | Tensor) -> Tensor:
        """Score ``[rows, slice, d_model]`` per layer into ``[layers, rows · slice, labels]``.

        A bank that can abstain has a last column more: the distance at its primary layer.
        `offset` is one for all, or ``[rows · slice]``. The heads live where the states of the
        first layer that they read are, and stay there; states of other devices come to them.

        Raises:
            UnsupportedError: for states of a part of the text alone.
        """
        chosen = [states[slot] for slot in self.slots]
        rows, width = chosen[0].shape[:2]
        if isinstance(offset, Tensor) and offset.numel() != rows * width:
            raise UnsupportedError(
                f"Could not score {offset.numel()} tokens from {rows * width} states: this model "
                "splits its states among processes along the text. Split it by tensors alone, "
                "without sequence parallelism."
            )
        home = chosen[0].device
        # By number: a device is an object that is made anew each time it is asked for.
        if len(chosen) > 1 and len({state.get_device() for state in chosen}) > 1:
            chosen = [state.to(home) for state in chosen]
        if isinstance(offset, Tensor):  # made where the states of another bank may be
            offset = offset.to(home)
        self.heads = self.heads.to(home)
        # [layers, rows · slice, d_model]; one layer needs no copy, and one row no other shape
        stacked = torch.cat(chosen) if len(chosen) > 1 else chosen[0]
        if rows > 1:
            stacked = stacked.reshape(len(chosen), rows * width, -1)
        if torch.is_autocast_enabled(home.type):  # the heads stay in float32 under the caller's
            with torch.autocast(home.type, enabled=False):
                return self._scored(stacked, offset)
        return self._scored(stacked, offset)

    def _scored(self, states: Tensor, offset: int | Tensor) -> Tensor:
        scores = self.heads.scores(states, offset)
        if self.distance is None:
            return scores
        self.distance = self.distance.to(states.device)
        column = self.distance.of(states[self.primary], offset)  # [rows · slice]
        return torch.cat((scores, column[None, :, None].expand(len(scores), -1, 1)), -1)


def make_readers(
    banks: Sequence[ProbeBank], which: Literal["primary", "all"]
) -> tuple[list[Reader], list[int]]:
    """Make a reader for each bank; return them and the layers that a tap must read for them."""
    layers = [bank.card.layers if which == "all" else (bank.card.primary,) for bank in banks]
    wanted = sorted(set().union(*layers))
    readers = [
        Reader(
            layers=of,
            primary=of.index(bank.card.primary),
            heads=bank.heads_at(of),
            slots=tuple(wanted.index(layer) for layer in of),
            distance=bank.distance,
        )
        for bank, of in zip(banks, layers, strict=True)
    ]
    return readers, wanted


def fetch(
    scores: Sequence[Tensor], whole_numbers: Sequence[Tensor]
) -> tuple[list[Floats], list[NDArray[np.integer]]]:
    """Bring the scores of each bank and a few integers to the host, in one copy.

    Returns:
        The scores, read-only and shaped as they were, and the integers, flat.
    """
    if all(score.is_cpu for score in scores):
        made = [score.numpy() for score in scores]
        numbers = [(n if n.is_cpu else n.cpu()).numpy().ravel() for n in whole_numbers]
    else:
        made, numbers = fetch_in_one_copy(scores, whole_numbers)
    for array in made:
        array.flags.writeable = False
    return made, numbers


def fetch_in_one_copy(
    scores: Sequence[Tensor], whole_numbers: Sequence[Tensor]
) -> tuple[list[Floats], list[NDArray[np.integer]]]:
    """Do the work of `fetch` for tensors on accelerators: the integers travel as float bits."""
    home = scores[0].device
    flat = [score.to(home).flatten() for score in scores]
    flat += [n.to(home, torch.int32).flatten().view(torch.float32) for n in whole_numbers]
    host = torch.cat(flat).cpu().numpy()
    parts = np.split(host, np.cumsum([part.numel() for part in flat])[:-1])
    made = [part.reshape(score.shape) for part, score in zip(parts, scores, strict=False)]
    return made, [part.view(np.int32) for part in parts[len(scores) :]]
