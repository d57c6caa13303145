"""The running turn: what each row has read and said, and how it ended.

Knows positions, tokens and segments; nothing of states, heads or plugins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emowatch.decoding import Decoding
from emowatch.errors import UnsupportedError
from emowatch.model.segments import SegmentParser
from emowatch.model.tap import Forward
from emowatch.records import FinishReason, Scores, Segment, Turn
from emowatch.trace import TokenTable
from emowatch.wording import ReplyText


@dataclass(slots=True)
class Row:
    """One sequence of the running turn."""

    prompt_tokens: int
    position: int
    """Position of the newest state."""
    text: ReplyText
    segment: Segment = "reply"
    """Of the next reply token."""
    finished: bool = False

    @property
    def offset(self) -> int:
        """Offset of the newest state."""
        return self.text.states - 1

    def take(self, token: int, parser: SegmentParser) -> None:
        """Take the reply token that the newest state produced."""
        self.text.add(token)
        self.segment = parser.reply_segment(token, self.segment)


@dataclass(slots=True)
class RunningTurn:
    """The running call of ``generate``."""

    index: int
    config: Any
    """The call's own generation config, by which it is told from others."""
    settings: Mapping[str, Any]
    rows: list[Row]
    limit: int | None
    """Longest reply in tokens, where one was set."""
    starts: list[int]
    """Per bank, the place in its table where this turn begins."""
    offset: int = 0
    told: int = 0
    """Steps that a streamer has told of."""

    def note(self, ids: Sequence[int], parser: SegmentParser) -> int | None:
        """Take the tokens just sampled, one per row, before they are read again.

        Returns:
            The offset of the first row's token; `None` once its reply is over.
        """
        # Transformers may tell of a step after the next one has run (5.23 does on mps), so
        # the step is counted here.
        offset, self.told = self.told, self.told + 1
        for row, token in zip(self.rows, ids, strict=True):
            if not row.finished and len(row.text.ids) == offset:
                row.take(token, parser)
        spoken = self.rows[0].text
        return offset if offset < min(len(spoken.ids), spoken.states) else None

    def advance(
        self,
        ids: NDArray[np.integer],
        speaking: NDArray[np.integer] | None,
        parser: SegmentParser,
    ) -> list[int]:
        """Take the tokens ``[rows]`` that a forward has just read; return the rows that speak.

        `speaking` ``[rows]`` is 0 for rows that read padding from here on.
        """
        self.offset += 1
        found = []
        for r, row in enumerate(self.rows):
            if row.finished:
                continue
            if len(row.text.ids) < self.offset:  # not told by a streamer
                row.take(int(ids[r]), parser)
            if speaking is not None and not speaking[r]:
                row.finished = True
                continue
            row.position += 1
            row.text.states += 1
            found.append(r)
        return found

    def finish(self, reason: FinishReason | None, tables: Sequence[TokenTable]) -> list[Turn]:
        """Describe each row's reply; a reason that is not given is worked out."""
        return [
            Turn(
                index=self.index,
                sequence=sequence,
                prompt_tokens=row.prompt_tokens,
                reply_tokens=row.text.states,
                finish_reason=self._reason(row, reason),
                text=row.text.text,
                token_ids=tuple(row.text.ids),
                settings=self.settings,
                mean_scores=self._means(sequence, tables),
            )
            for sequence, row in enumerate(self.rows)
        ]

    def _reason(self, row: Row, reason: FinishReason | None) -> FinishReason:
        ends = getattr(self.config, "eos_token_id", None)
        if row.finished or (
            row.text.ids and row.text.ids[-1] in (ends if isinstance(ends, list) else [ends])
        ):
            return "stop"
        if row.text.states == self.limit and reason != "failed":
            return "length"  # also where it was cancelled at its last token
        return reason or "stop"

    def _means(self, sequence: int, tables: Sequence[TokenTable]) -> dict[str, Scores]:
        return {
            table.bank.name: Scores(
                table.bank.labels, table.reply_mean(start, self.index, sequence)
            )
            for table, start in zip(tables, self.starts, strict=True)
        }


@dataclass(frozen=True, slots=True)
class PromptToken:
    """One token of a prompt, padding left out."""

    place: int
    """Index among the ``rows · slice`` tokens of the forward."""
    sequence: int
    position: int
    offset: int | None
    segment: Segment


def begin_turn(
    index: int,
    decoding: Decoding,
    seed: int | None,
    forward: Forward,
    ids: NDArray[np.integer],
    mask: NDArray[np.integer] | None,
    tables: Sequence[TokenTable],
    tokenizer: Any,
    parser: SegmentParser,
) -> tuple[RunningTurn, list[PromptToken]]:
    """Begin a turn with the forward that reads its prompt, and list the prompt's tokens.

    Args:
        index: number of the turn.
        decoding: the loop that runs the forward.
        seed: torch's, where it was set for this turn.
        forward: its shape and the columns before it.
        ids: ``[rows · slice]``, the tokens read.
        mask: ``[rows · (past + slice)]``, or `None` where every token counts.
        tables: where scores are kept, one per bank.
        tokenizer: turns tokens into text.
        parser: tells segments.

    Raises:
        UnsupportedError: for a batch that is padded on the right.
    """
    rows, width = forward.input_ids.shape
    if mask is None:
        kept = np.ones((rows, forward.past + width), dtype=bool)
    else:
        kept = mask.reshape(rows, -1) != 0
    if not kept[:, -1].all():
        raise UnsupportedError(
            "Could not watch a batch that is padded on the right: its replies would follow "
            'padding. Set tokenizer.padding_side = "left".'
        )
    positions = kept.cumsum(1) - 1  # [rows, past + width]
    made: list[Row] = []
    tokens: list[PromptToken] = []
    for r, of_row in enumerate(ids.reshape(rows, width)):
        columns = np.flatnonzero(kept[r, forward.past :])
        segments, opening = parser.parse_prompt(of_row[columns].tolist())
        last = int(positions[r, -1])
        made.append(Row(last + 1, last, ReplyText(tokenizer), opening))
        made[r].text.states = 1
        segments[-1] = opening  # the last state speaks of the reply's first token
        places = positions[r, forward.past + columns].tolist()
        for column, position, segment in zip(columns.tolist(), places, segments, strict=True):
            offset = 0 if column == width - 1 else None
            tokens.append(PromptToken(r * width + column, r, position, offset, segment))
    turn = RunningTurn(
        index=index,
        config=decoding.config,
        settings=decoding.settings() | ({} if seed is None else {"seed": seed}),
        rows=made,
        limit=decoding.left,
        starts=[len(table) for table in tables],
    )
    return turn, tokens
