"""The token scores of one bank, in columns."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import nan
from typing import overload

import numpy as np

from emowatch.records import SEGMENTS, BankInfo, Floats, Scores, Segment, TokenScore


class TokenTable(Sequence[TokenScore]):
    """The token scores of one bank, stored in columns: about 45 bytes a token for 7 labels."""

    def __init__(self, bank: BankInfo, layers: tuple[int, ...] = ()) -> None:
        """Start empty; `layers` are those of `layer_scores`, where they are kept."""
        self.bank = bank
        self.layers = layers
        self._turn, self._position, self._offset = array("i"), array("i"), array("i")
        self._sequence, self._segment = array("h"), array("b")
        self._scores, self._layer_scores = array("f"), array("f")
        self._distance = array("f")

    def append(
        self,
        *,
        turn: int,
        sequence: int,
        position: int,
        offset: int | None,
        segment: Segment,
        scores: Floats,
        layer_scores: Floats | None = None,
        distance: float | None = None,
    ) -> None:
        """Add one token; `scores` ``[labels]``, `layer_scores` ``[layers, labels]``."""
        self._turn.append(turn)
        self._sequence.append(sequence)
        self._position.append(position)
        self._offset.append(-1 if offset is None else offset)
        self._segment.append(SEGMENTS.index(segment))
        self._scores.frombytes(np.asarray(scores, np.float32).tobytes())
        if layer_scores is not None:
            self._layer_scores.frombytes(np.asarray(layer_scores, np.float32).tobytes())
        if self.bank.can_abstain:
            self._distance.append(nan if distance is None else distance)

    def add(self, score: TokenScore) -> None:
        """Add the record of one token, as of another table of the same bank."""
        self.append(
            turn=score.turn,
            sequence=score.sequence,
            position=score.position,
            offset=score.offset,
            segment=score.segment,
            scores=score.scores.array,
            layer_scores=score.layer_scores if self.layers else None,
            distance=score.distance,
        )

    def __len__(self) -> int:
        """Count the tokens."""
        return len(self._turn)

    @overload
    def __getitem__(self, index: int) -> TokenScore: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenScore]: ...
    def __getitem__(self, index: int | slice) -> TokenScore | list[TokenScore]:
        """Build the record of one token, or of several."""
        if isinstance(index, slice):
            return [self._record(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"token {index} of a trace with {len(self)} tokens")
        return self._record(index % len(self))

    @property
    def turns(self) -> int:
        """Turns so far, the running one counted."""
        return max(self._turn, default=-1) + 1

    def array(self) -> Floats:
        """Copy all scores ``[tokens, labels]``."""
        return np.array(self._scores, dtype=np.float32).reshape(len(self), len(self.bank.labels))

    def offsets(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """Copy all offsets ``[tokens]``; -1 before the last prompt token."""
        return np.array(self._offset, dtype=np.int32)

    def mean(
        self, segment: Segment, turn: int, sequence: int = 0, *, start: int = 0
    ) -> Floats | None:
        """Average ``[labels]`` over one segment of one row in a turn; `None` where it has none.

        Of ``reply`` and ``thinking`` only what the model said in that turn counts, and not the
        earlier messages that the prompt repeats. `start` is the place to look from.
        """
        if segment not in SEGMENTS:
            raise ValueError(f"there is no segment {segment!r}; there are: {', '.join(SEGMENTS)}")
        width = len(self.bank.labels)
        chosen = (
            (np.array(self._turn[start:], dtype=np.int32) == turn)
            & (np.array(self._sequence[start:], dtype=np.int16) == sequence)
            & (np.array(self._segment[start:], dtype=np.int8) == SEGMENTS.index(segment))
        )
        if segment in ("reply", "thinking"):
            chosen &= np.array(self._offset[start:], dtype=np.int32) >= 0
        if not chosen.any():
            return None
        scores = np.array(self._scores[start * width :], dtype=np.float32).reshape(-1, width)
        with np.errstate(invalid="ignore"):  # what is no number makes a mean that is none
            mean: Floats = scores[chosen].mean(0)
        return mean

    def _record(self, i: int) -> TokenScore:
        width = len(self.bank.labels)
        scores = np.array(self._scores[i * width : (i + 1) * width], dtype=np.float32)
        scores.flags.writeable = False
        layer_scores = None
        if self._layer_scores:
            size = width * len(self.layers)
            flat = self._layer_scores[i * size : (i + 1) * size]
            layer_scores = np.array(flat, dtype=np.float32).reshape(len(self.layers), width)
            layer_scores.flags.writeable = False
        return TokenScore(
            bank=self.bank.name,
            turn=self._turn[i],
            sequence=self._sequence[i],
            position=self._position[i],
            offset=None if self._offset[i] < 0 else self._offset[i],
            segment=SEGMENTS[self._segment[i]],
            scores=Scores(self.bank.labels, scores),
            layers=self.layers if layer_scores is not None else (),
            layer_scores=layer_scores,
            distance=self._distance[i] if self._distance else None,
            sets=self.bank.sets,
        )
