"""Follow a reply token by token and tell which segment the next token belongs to."""

from __future__ import annotations

import re

from emowatch.model.segments.grammar import SEGMENT_OF, Grammar, Patterns
from emowatch.model.segments.rendering import Part
from emowatch.records import Segment


class ReplySegments:
    """Segments of one reply; each row of a batch has its own.

    `segment` is what is known before the next token is: a tag counts to what stands before it,
    and to ``special`` once its first token has been said, where that token is one of its own.
    """

    __slots__ = ("_grammar", "_is_fresh", "_last", "_part", "segment")

    def __init__(self, grammar: Grammar, part: Part, is_fresh: bool) -> None:
        """Begin in one part of an assistant's message; `is_fresh` while nothing was said in it."""
        self._grammar = grammar
        self._part = part
        self._is_fresh = is_fresh
        self._last = ""
        """What was said last, as far as it may be the beginning of a delimiter."""
        self.segment: Segment = self._told()
        """The segment of the next token."""

    @property
    def is_thinking(self) -> bool:
        """Whether thoughts are open."""
        return self._part == "thinking"

    def _told(self) -> Segment:
        if self._part == "header" or self._is_inside_a_tag():
            return "special"
        return SEGMENT_OF[self._part]

    def take(self, token: int) -> Segment:
        """Take the token that was said and give the segment of the next one."""
        self._last += self._grammar.spelling.piece(token)
        if self._is_fresh and self._part in ("assistant", "header"):
            tag = self._grammar.at_start.match(self._last)
            if tag is not None:
                self._enter("thinking", tag)
        while match := self._patterns.found.search(self._last):
            self._enter(self._patterns.run(match).target, match)
        said = self._last.strip()
        if self._part == "header" and not self._patterns.is_begun(said):
            self._part = "assistant"  # the model writes what its template would not
        self._is_fresh &= not said or any(tag.startswith(said) for tag in self._grammar.starts)
        if not self._is_fresh:
            self._last = self._last[-self._grammar.longest :]
        self.segment = self._told()
        return self.segment

    @property
    def _patterns(self) -> Patterns:
        return self._grammar.of_reply[self._part]

    def _enter(self, part: Part, tag: re.Match[str]) -> None:
        self._part, self._is_fresh = part, False
        self._last = self._last[tag.end() :]

    def _is_inside_a_tag(self) -> bool:
        said = self._last.strip()
        if self._is_fresh and said and self._part == "assistant":
            return True  # only the beginning of a tag leaves a message fresh
        return self._patterns.is_inside(self._last)
