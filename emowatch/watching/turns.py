"""The running turn: what each row has read and said, and how it ended.

Knows columns, positions, tokens and segments; nothing of states, heads or plugins.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from emowatch.decoding import Decoding, Loop, is_generating
from emowatch.errors import UnsupportedError
from emowatch.model.forward import Forward
from emowatch.model.segments import ReplySegments
from emowatch.records import FinishReason, Scores, Segment, Turn
from emowatch.trace import TokenTable
from emowatch.watching.held import Beams, Candidates
from emowatch.watching.prompts import Prompt
from emowatch.wording import ReplyText


@dataclass(slots=True)
class Row:
    """One sequence of the running turn."""

    prompt_tokens: int
    text: ReplyText
    segments: ReplySegments
    finished: bool = False

    @property
    def offset(self) -> int:
        """Offset of the newest state."""
        return self.text.states - 1

    @property
    def position(self) -> int:
        """Position of the newest state."""
        return self.prompt_tokens + self.text.states - 2

    @property
    def segment(self) -> Segment:
        """Segment of the next reply token."""
        return self.segments.segment

    def take(self, token: int) -> None:
        """Take the reply token that the newest state produced."""
        self.text.add(token)
        self.segments.take(token)


@dataclass(slots=True)
class RunningTurn:
    """The running call of ``generate``, or the caller's own loop over the model."""

    index: int
    loop: Loop
    config: Any
    """The call's own generation config, by which it is told from others; `None` in an own loop."""
    rereads: bool
    """Whether every forward reads the whole text again."""
    settings: Mapping[str, Any]
    prompt: Prompt
    base: int
    """Columns before the first that the loop itself knows of."""
    sources: Sequence[int]
    """For each sequence, the row that reads its prompt."""
    rows: list[Row]
    """One for each sequence that is returned."""
    limit: int | None
    """Longest reply in tokens, where one was set."""
    starts: list[int]
    """Per bank, the place in its table where this turn begins."""
    seen: int
    """Columns that were read and kept; the next forward's new ones begin here."""
    offset: int = -1
    """Of the newest states, where all rows go together."""
    told: int = 0
    """Steps that a streamer has told of."""
    candidates: Candidates = field(default_factory=Candidates)
    """States of assisted decoding whose tokens are not settled."""
    compiled: bool = False
    """Whether the forwards after the prompt's run as compiled code, which calls nobody."""
    beams: Beams | None = None
    """The beam search that runs, if it is one."""
    kept: Tensor | None = None
    """``[rows, columns]``: all tokens of a `steps` loop, also the newest, which nobody reads."""
    is_heard: bool = False
    """Whether a `Listener` hears what the loop keeps."""
    verdict: Tensor | None = None
    """``[rows]``: whether the loop's stopping criteria have ended each row; `None` before."""
    place: int | None = None
    """Where the loop stands on the stack, from its last word until its next forward."""
    _cache: weakref.ref[Any] | None = field(default=None)
    _last_ids: Tensor | None = None
    _thread: int = field(default_factory=threading.get_ident)

    def goes_on_with(self, decoding: Decoding, forward: Forward) -> bool:
        """Tell whether a forward belongs to this turn or begins another."""
        if decoding.config is not None or self.config is not None:
            return decoding.config is self.config
        # An own loop says nothing of itself: one new token for each row, right after the last.
        rows, width = forward.input_ids.shape
        if rows != len(self.rows):
            return False
        kept = None if self._cache is None else self._cache()
        if width == 1 and forward.is_recurrent and kept is not None and kept is forward.cache:
            forward.read = self.seen
            return True
        if width == 1 and forward.past == self.seen:
            return self._cache is None or kept is forward.cache
        last = self._last_ids
        return (
            last is not None
            and forward.past == 0
            and width == self.seen + 1 == last.shape[1] + 1
            and bool((forward.input_ids[:, :-1] == last).all())
        )

    def follow(self, forward: Forward) -> None:
        """Note by what the next forward of an own loop is known."""
        if self.loop != "own":
            return
        self._last_ids = forward.input_ids if forward.past == 0 else None
        try:
            self._cache = None if forward.cache is None else weakref.ref(forward.cache)
        except TypeError:  # caches of other kinds, such as tuples, are new at each step
            self._cache = None

    def columns(self, forward: Forward) -> tuple[int, int]:
        """Give the columns that a forward is the first to read: the first, and one past the last.

        Raises:
            UnsupportedError: for a forward that does not go on where the last one ended.
        """
        width = forward.input_ids.shape[1]
        rereads = self.rereads or (self.loop == "own" and forward.past == 0)
        last = width if rereads else self.seen + width
        plain = self.loop != "assisted" and self.seen >= self.prompt.columns
        if last <= self.seen or (plain and last != self.seen + 1):
            raise UnsupportedError(
                f"Could not follow a forward of shape {tuple(forward.input_ids.shape)} after "
                f"{self.seen} columns: one new token per row was expected."
            )
        return self.seen, last

    def note(self, ids: Sequence[int]) -> int | None:
        """Take the tokens just sampled, one per row, before they are read again.

        Returns:
            The offset of the first row's token; `None` once its reply is over.
        """
        # Transformers may tell of a step after the next one has run (5.23 does on mps), so
        # the step is counted here.
        offset, self.told = self.told, self.told + 1
        for row, token in zip(self.rows, ids, strict=True):
            if not row.finished and len(row.text.ids) == offset < row.text.states:
                row.take(token)
        spoken = self.rows[0].text
        return offset if offset < min(len(spoken.ids), spoken.states) else None

    @property
    def is_here(self) -> bool:
        """Whether this is the thread that runs it."""
        return threading.get_ident() == self._thread

    @property
    def is_over(self) -> bool:
        """Whether ``generate`` has returned; to be asked by the thread that called it."""
        if is_generating():
            return False
        return self.beams is not None or (self.verdict is not None and bool(self.verdict.all()))

    @property
    def cannot_steer(self) -> str:
        """Name the way of decoding where it cannot be steered; nothing where it can."""
        if self.rereads:
            return "use_cache=False"
        if self.compiled:
            return "a compiled forward"
        return {"assisted": "assisted decoding", "beams": "beam search"}.get(self.loop, "")

    def begin_reply(self) -> list[int]:
        """Count the states that the first reply tokens are sampled from; return the rows."""
        self.offset = 0
        for row in self.rows:
            row.text.states = 1
        return list(range(len(self.rows)))

    def advance(
        self,
        ids: NDArray[np.integer],
        speaking: NDArray[np.integer] | None,
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
                row.take(int(ids[r]))
            if speaking is not None and not speaking[r]:
                row.finished = True
                continue
            row.text.states += 1
            found.append(r)
        return found

    def take_last(self) -> None:
        """Take the tokens that no forward has read, from what the loop kept."""
        if self.kept is None:
            return
        first = self.prompt.columns - self.base
        said = self.kept[:, first:].cpu().numpy()  # [rows, reply]
        for row, ids in zip(self.rows, said, strict=True):
            for token in ids[len(row.text.ids) : row.text.states].tolist():
                row.take(token)

    def finish(
        self,
        reason: FinishReason | None,
        tables: Sequence[TokenTable],
        stopped: Collection[int] = (),
    ) -> list[Turn]:
        """Describe each row's reply; a reason that is not given is worked out.

        `stopped` are the rows that an alarm asked to end.
        """
        ended: list[bool | None] = [False if self.is_heard else None] * len(self.rows)
        if self.verdict is not None:
            ended = self.verdict.tolist()
        return [
            Turn(
                index=self.index,
                sequence=sequence,
                prompt_tokens=row.prompt_tokens,
                reply_tokens=row.text.states,
                finish_reason=self._reason(
                    row, reason, ended[sequence], self.is_heard and sequence in stopped
                ),
                text=row.text.text,
                token_ids=tuple(row.text.ids),
                pieces=row.text.pieces,
                settings=self.settings,
                mean_scores=self._means(sequence, tables),
            )
            for sequence, row in enumerate(self.rows)
        ]

    def _reason(
        self, row: Row, reason: FinishReason | None, ended: bool | None, is_stopped: bool
    ) -> FinishReason:
        ends = getattr(self.config, "eos_token_id", None)
        said_end = row.text.ids and row.text.ids[-1] in (ends if isinstance(ends, list) else [ends])
        if is_stopped and not said_end and reason != "failed":
            return "alarm"
        if row.finished or said_end:
            return "stop"
        if len(row.text.ids) == row.text.states == self.limit and reason != "failed":
            return "length"  # also where it was cancelled at its last token
        return reason or ("failed" if ended is False else "stop")

    def _means(self, sequence: int, tables: Sequence[TokenTable]) -> dict[str, Scores]:
        means = {}
        for table, start in zip(tables, self.starts, strict=True):
            mean = table.mean("reply", self.index, sequence, start=start)
            if mean is not None:
                means[table.bank.name] = Scores(table.bank.labels, mean)
        return means


def begin_turn(
    index: int,
    decoding: Decoding,
    seed: int | None,
    forward: Forward,
    prompt: Prompt,
    known: int,
    tables: Sequence[TokenTable],
    tokenizer: Any,
) -> RunningTurn:
    """Begin a turn with the first forward that reads its prompt.

    Args:
        index: number of the turn.
        decoding: the loop that runs the forward.
        seed: torch's, where it was set for this turn.
        forward: that first forward.
        prompt: the whole prompt, for the rows of the forward.
        known: columns of the prompt that the loop knows of.
        tables: where scores are kept, one per bank.
        tokenizer: turns tokens into text.
    """
    sources: Sequence[int] = range(len(prompt.lengths))
    if decoding.loop == "beams":
        texts = range(0, len(prompt.lengths), decoding.beams)
        sources = [row for row in texts for _ in range(decoding.returned)]
    return RunningTurn(
        index=index,
        loop=decoding.loop,
        config=decoding.config,
        rereads=decoding.rereads,
        settings=decoding.settings() | ({} if seed is None else {"seed": seed}),
        prompt=prompt,
        base=prompt.columns - known,
        sources=sources,
        rows=[
            Row(prompt.lengths[row], ReplyText(tokenizer), copy(prompt.replies[row]))
            for row in sources
        ],
        limit=decoding.left,
        starts=[len(table) for table in tables],
        seen=forward.past,
        compiled=decoding.compiled,
        beams=None if decoding.frame is None else Beams(decoding.frame),
    )
