"""Tell which part of a dialogue each token of a prompt belongs to.

The chat template is learned from itself: it is rendered once with marked contents, and the
token runs between two contents become the delimiters that are then searched in real prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jinja2

from emowatch.records import Segment

_MARKS = {
    "system": "qzsystemzq",
    "user": "qzuserzq",
    "assistant": "qzassistantzq",
    "tool": "qztoolzq",
}
_SEGMENT_OF_ROLE: dict[str, Segment] = {
    "system": "system",
    "user": "user",
    "assistant": "reply",
    "tool": "tool",
}
_PROBES = (
    ("user", "assistant", "user", "assistant"),
    ("user",),
    ("system", "user", "assistant", "user", "assistant"),
    ("system", "user"),
    ("user", "assistant", "tool"),
)
"""Dialogues that are rendered. Of two roles that a template opens alike, as where a system text
becomes the start of the user's message, the one met first here is believed."""
_START, _END = "start", "end"
_Delimiter: TypeAlias = tuple[str, str, tuple[int, ...]]
"""The role it leads away from, the role it leads to, its tokens."""


class SegmentParser:
    """Segments of prompts written by one tokenizer's chat template.

    A prompt that does not follow the template, or a tokenizer without one, yields the single
    segment ``user``. Only token ids are seen: a message that spells out the template's own
    delimiters, and is encoded to their tokens, reads as what it imitates.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Learn the delimiters; a few renderings of the template, no model."""
        self._delimiters = _learn(tokenizer) if getattr(tokenizer, "chat_template", None) else []
        self._special = set(getattr(tokenizer, "all_special_ids", ()))
        vocabulary = tokenizer.get_vocab() if tokenizer is not None else {}
        self._think = vocabulary.get("<think>"), vocabulary.get("</think>")

    def parse(self, ids: Sequence[int]) -> list[Segment]:
        """Give the segment of each token of one prompt, padding left out."""
        return self.parse_prompt(ids)[0]

    def parse_prompt(self, ids: Sequence[int]) -> tuple[list[Segment], Segment]:
        """Give the segment of each token of one prompt, and that of the reply's first token.

        A reply begins as ``thinking`` where the prompt has opened that and not closed it.
        """
        segments: list[Segment] = []
        role, place, is_thinking = _START, 0, False
        while place < len(ids):
            following, length = self._delimiter_at(ids, place, role)
            if length:
                # Whatever was left open in one message ends with it.
                role, is_thinking = following, False
                if role == "assistant":
                    for token in ids[place : place + length]:
                        is_thinking = self._still_thinking(token, is_thinking)
                segments += ["special"] * length
                place += length
                continue
            token = ids[place]
            segment = _SEGMENT_OF_ROLE.get(role, "user")
            if role == "assistant":
                if token in self._think:
                    segment = "special"
                elif is_thinking:
                    segment = "thinking"
                is_thinking = self._still_thinking(token, is_thinking)
            segments.append("special" if token in self._special else segment)
            place += 1
        return segments, "thinking" if role == "assistant" and is_thinking else "reply"

    def reply_segment(self, previous: int | None, segment: Segment) -> Segment:
        """Give the segment of the next reply token from the last one and its segment."""
        if previous is None or previous not in self._think:
            return segment
        return "thinking" if self._still_thinking(previous, False) else "reply"

    def _still_thinking(self, token: int, is_thinking: bool) -> bool:
        opening, closing = self._think
        if token == opening:
            return True
        return is_thinking and token != closing

    def _delimiter_at(self, ids: Sequence[int], place: int, role: str) -> tuple[str, int]:
        """Find the longest delimiter that leads away from `role` at this place."""
        best = (role, 0)
        for source, target, run in self._delimiters:
            length = len(run)
            if source == role and length > best[1] and tuple(ids[place : place + length]) == run:
                best = (target, length)
        return best


def _learn(tokenizer: Any) -> list[_Delimiter]:
    found: list[_Delimiter] = []
    for roles in _PROBES:
        messages = [{"role": role, "content": _MARKS[role]} for role in roles]
        for prompt_opened in (False, True):
            try:
                text = tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=prompt_opened
                )
            except (jinja2.TemplateError, TypeError, ValueError):
                continue  # the template has no such dialogue, as without a system role
            found += _between_marks(tokenizer, text, roles, prompt_opened)
    found += _openings(found)
    return [delimiter for delimiter in dict.fromkeys(found) if delimiter[2]]


def _openings(delimiters: Sequence[_Delimiter]) -> list[_Delimiter]:
    """Derive what opens a message after any closed one, as where one role speaks twice.

    What stands between two roles is an end and a beginning; the end is known where a dialogue
    may stop there.
    """
    openings = []
    for source, target, run in delimiters:
        ends = [r for s, t, r in delimiters if s == source and t == _END and run[: len(r)] == r]
        longest = max(map(len, ends), default=0)
        if longest and target != _END:
            openings.append((_END, target, run[longest:]))
    return openings


def _between_marks(
    tokenizer: Any, text: str, roles: Sequence[str], prompt_opened: bool
) -> list[_Delimiter]:
    """Cut one rendering at its marked contents into the token runs between them."""
    try:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    except NotImplementedError:
        return []  # a tokenizer in pure Python cannot say where a token stands in the text
    spans = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
    found: list[_Delimiter] = []
    before, start = _START, 0
    for role in roles:
        place = text.find(_MARKS[role], start)
        if place < 0:
            return found
        found.append((before, role, _within(spans, start, place)))
        before, start = role, place + len(_MARKS[role])
    last = "assistant" if prompt_opened else _END
    found.append((before, last, _within(spans, start, len(text))))
    return found


def _within(spans: Sequence[tuple[int, tuple[int, int]]], start: int, end: int) -> tuple[int, ...]:
    return tuple(token for token, (left, right) in spans if left >= start and right <= end)
