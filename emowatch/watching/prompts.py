"""A prompt column by column: which token stands where, in which segment, padding left out.

A prompt may be read in one forward or in several, and a part of it may be in the cache already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emowatch.decoding import Decoding
from emowatch.errors import UnsupportedError
from emowatch.model.forward import Forward
from emowatch.model.segments import ReplySegments, SegmentParser
from emowatch.records import Segment


@dataclass(frozen=True, slots=True)
class PromptToken:
    """One token of a prompt."""

    place: int
    """Index among the ``rows · columns`` states that were read with it."""
    sequence: int
    position: int
    segment: Segment


class Prompt:
    """The columns of a batch of prompts.

    Attributes:
        columns: how many there are, with those in the cache and padding.
        lengths: tokens of each row.
        replies: for each row, what tells the segments of its reply.
    """

    def __init__(
        self,
        ids: NDArray[np.integer],
        mask: NDArray[np.integer] | None,
        columns: int,
        parser: SegmentParser,
    ) -> None:
        """Lay out a batch of prompts.

        Args:
            ids: ``[rows, known]``: the last `known` of the columns; the rest are in the cache
                and not at hand.
            mask: ``[rows, columns]``, 0 for padding; `None` where every token counts.
            columns: how many there are.
            parser: tells segments.

        Raises:
            UnsupportedError: for a batch that is padded on the right.
        """
        rows, known = ids.shape
        kept = np.ones((rows, columns), dtype=bool) if mask is None else mask != 0
        if not kept[:, -1].all():
            raise UnsupportedError(
                "Could not watch a batch that is padded on the right: its replies would follow "
                'padding. Set tokenizer.padding_side = "left".'
            )
        self.columns = columns
        self._positions = kept.cumsum(1) - 1  # [rows, columns]
        self.lengths: list[int] = (self._positions[:, -1] + 1).tolist()
        self.replies: list[ReplySegments] = []
        self._columns: list[NDArray[np.integer]] = []
        self._segments: list[list[Segment]] = []
        for row in range(rows):
            own = np.flatnonzero(kept[row, columns - known :])
            segments, reply = parser.follow(ids[row, own].tolist())
            self.replies.append(reply)
            self._columns.append(own + (columns - known))
            self._segments.append(segments)

    def tokens(
        self, first: int, last: int, width: int, rows: Sequence[int]
    ) -> Iterator[PromptToken]:
        """List the tokens in the columns from `first` up to and without `last`.

        Args:
            first: first column that was read.
            last: the column after the last that is asked for.
            width: columns that were read, from `first` on.
            rows: for each sequence, the row that read it.
        """
        for sequence, row in enumerate(rows):
            own = self._columns[row]
            start, end = np.searchsorted(own, (first, last)).tolist()
            columns = own[start:end]
            positions = self._positions[row, columns]
            for column, position, segment in zip(
                columns.tolist(), positions.tolist(), self._segments[row][start:end], strict=True
            ):
                yield PromptToken(row * width + column - first, sequence, position, segment)


def prompt_columns(decoding: Decoding, forward: Forward) -> int:
    """Count the columns of a prompt from the first forward that reads of it.

    Raises:
        UnsupportedError: for a forward that reads more than the prompt's part that is not in the
            cache, as assisted decoding does in transformers 5.23 where it goes on from a cache; for
            chunks before transformers 5 or in compiled code; and for a mask of another form in an
            own loop.
    """
    mask = forward.attention_mask
    if decoding.loop == "own" and mask is not None:
        reached = forward.past + forward.input_ids.shape[1]
        if mask.shape[1] < reached:
            raise UnsupportedError(
                f"Could not watch a forward whose mask has {mask.shape[1]} columns where its text "
                f"has {reached}: it must also tell of the tokens in the cache."
            )
    is_told = forward.read is not None or forward.places is not None
    if forward.is_recurrent and not is_told and decoding.loop == "own":
        raise UnsupportedError(
            "Could not watch a loop of your own that goes on from a recurrent state of another "
            "turn: nothing tells how much of the text that has read. Begin with the whole prompt "
            "and without a state, inside the watch, or call model.generate."
        )
    if forward.is_odd and decoding.loop == "own":
        raise UnsupportedError(
            "Could not watch a forward whose attention mask is not [rows, columns]: padding cannot "
            "be told from it, and positions with it. Pass such a mask, or call model.generate."
        )
    unread = decoding.unread
    if decoding.chunked and decoding.compiled:
        raise UnsupportedError(
            "Could not watch a prompt that is read in chunks by compiled code. Leave "
            "prefill_chunk_size out, or pass disable_compile=True to generate."
        )
    if decoding.chunked and unread is None:
        raise UnsupportedError(
            "Could not watch a prompt that is read in chunks: this version of transformers runs "
            "them past the model's hooks. Leave prefill_chunk_size out, or use transformers 5."
        )
    if unread is None:
        unread = int(forward.input_ids.shape[1]) - decoding.candidates
    columns = forward.past + unread
    if columns < 1:
        raise UnsupportedError(
            f"Could not watch a forward of {unread} tokens after {forward.past} columns: the cache "
            "counts other columns than the text has. Pass an attention mask over the whole text."
        )
    if decoding.length is not None and columns != decoding.length:
        raise UnsupportedError(
            f"Could not watch this generation: transformers reads {unread} tokens after the "
            f"{forward.past} in the cache, but the text has {decoding.length}. Its reply would "
            "follow words that are not in the prompt. Begin with an empty cache."
        )
    return columns
