"""One forward pass of a model, before it is over and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(slots=True)  # not frozen: that would double what it takes to make one at each forward
class Forward:
    """One forward pass of the whole model, as the tap saw it."""

    input_ids: Tensor
    """``[rows, slice]``: the tokens this forward read."""
    attention_mask: Tensor | None
    """``[rows, past + slice]``, 0 for padding; `None` where none was given or it `is_odd`."""
    cache: Any
    """The cache, which holds this forward's columns once it is over; `None` without one."""
    places: Tensor | None = None
    """``[slice]``: the columns it reads, where it is told of them (transformers before 5)."""
    is_odd: bool = False
    """Whether a mask of another form was given, from which padding cannot be told."""
    is_recurrent: bool = False
    """Whether `cache` is a recurrent state, which does not tell how much it has read."""
    read: int | None = None
    """Columns before it, where they were found out otherwise."""
    states: tuple[Tensor, ...] = ()
    """For each layer of the tap ``[rows, slice, d_model]``; none before it is over."""

    @property
    def past(self) -> int:
        """Columns that were in the cache before.

        Asked of the cache as it is now: true until the next forward. May wait for the device.
        """
        if self.read is not None:
            return self.read
        if self.places is not None:
            return int(self.places[0])
        if self.cache is not None and not self.is_recurrent:
            added = int(self.input_ids.shape[1]) if self.states else 0
            return int(self.cache.get_seq_length()) - added
        if self.attention_mask is not None:  # families that keep their cache to themselves
            return int(self.attention_mask.shape[1] - self.input_ids.shape[1])
        return 0
