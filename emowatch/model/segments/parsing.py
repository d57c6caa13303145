"""Tell which part of a dialogue each token of a prompt belongs to.

The chat template is learned from itself: it is rendered with marked contents, and the text
between two contents becomes a delimiter that is then searched in real prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from emowatch.model.segments.grammar import SEGMENT_OF, SPEAKING, Grammar
from emowatch.model.segments.rendering import Part
from emowatch.model.segments.replies import ReplySegments
from emowatch.records import SEGMENTS, Segment

_SPECIAL = SEGMENTS.index("special")


class SegmentParser:
    """Segments of prompts written by one tokenizer's chat template, and of replies to them.

    A prompt that does not follow the template, or a tokenizer without one, yields the single
    segment ``user``. Only token ids are seen: a message that spells out the template's own
    delimiters, and is encoded to their tokens, reads as what it imitates. A token that belongs
    half to a delimiter and half to a message counts to the message.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Learn the delimiters; some dozens of renderings of the template, no model."""
        self._grammar = Grammar(tokenizer)

    def parse(self, ids: Sequence[int]) -> list[Segment]:
        """Give the segment of each token of one prompt, padding left out."""
        return self.follow(ids)[0]

    def follow(self, ids: Sequence[int]) -> tuple[list[Segment], ReplySegments]:
        """Give the segment of each token of one prompt, and what tells those of its reply."""
        pieces = [self._grammar.spelling.piece(token) for token in ids]
        text = "".join(pieces)
        codes, part, begun = self._read(text)
        segments: list[Segment] = []
        special = self._grammar.spelling.special
        ends = accumulate(map(len, pieces))
        for token, piece, end in zip(ids, pieces, ends, strict=True):
            told = codes[end - len(piece) : end].strip(bytes([_SPECIAL]))
            is_special = token in special or not told
            segments.append("special" if is_special else SEGMENTS[told[0]])
        is_fresh = not text[begun:].strip()
        return segments, ReplySegments(
            self._grammar, part if part in SPEAKING else "assistant", is_fresh
        )

    def _read(self, text: str) -> tuple[bytearray, Part, int]:
        """Give a code of each letter's segment, the last part, and where its message begins."""
        grammar = self._grammar
        codes = bytearray([_SPECIAL]) * len(text)
        part, place, begun = grammar.begins, 0, 0
        is_known = has_thought = False
        while True:
            if part in ("assistant", "header") and place == begun:
                tag = grammar.at_start.match(text, place)
                if tag is not None:
                    part, place, has_thought = "thinking", tag.end(), True
            patterns = grammar.of_prompt(part)
            match = patterns.found.search(text, place)
            end = len(text) if match is None else match.start()
            if part != "end" or text[place:end].strip():
                codes[place:end] = _code(part) * (end - place)
            if match is None:
                break
            run = patterns.run(match)
            is_stray = run.source == run.target == "assistant" and run.text in grammar.tags.closings
            if is_stray and not has_thought:
                # It was opened in a generation prompt that the message does not repeat.
                codes[begun:end] = _code("thinking") * (end - begun)
            if not run.is_inside:
                begun, has_thought = match.end(), False
            has_thought |= is_stray or run.target == "thinking"
            part, place, is_known = run.target, match.end(), True
        if not is_known:
            return bytearray(_code("user") * len(text)), "end", len(text)
        return codes, part, begun


def _code(part: Part) -> bytes:
    return bytes([SEGMENTS.index(SEGMENT_OF[part])])
