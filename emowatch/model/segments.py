"""Tell which part of a dialogue each token of a prompt belongs to.

The chat template is learned from itself: it is rendered once with marked contents, and the
token runs between two contents become the delimiters that are then searched in real prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2

from emowatch.records import Segment

_MARKS = {"system": "qzsystemzq", "user": "qzuserzq", "assistant": "qzassistantzq"}
_SEGMENT_OF_ROLE: dict[str, Segment] = {"system": "system", "user": "user", "assistant": "reply"}
_PROBES = (
    ("system", "user", "assistant", "user", "assistant"),
    ("user", "assistant", "user", "assistant"),
    ("user",),
    ("system", "user"),
)
_START, _END = "start", "end"


class SegmentParser:
    """Segments of prompts written by one tokenizer's chat template.

    A prompt that does not follow the template, or a tokenizer without one, yields the single
    segment ``user``.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Learn the delimiters; a few renderings of the template, no model."""
        self._delimiters = _learn(tokenizer) if getattr(tokenizer, "chat_template", None) else {}
        self._special = set(getattr(tokenizer, "all_special_ids", ()))
        vocabulary = tokenizer.get_vocab() if tokenizer is not None else {}
        self._think = vocabulary.get("<think>"), vocabulary.get("</think>")

    def parse(self, ids: Sequence[int]) -> list[Segment]:
        """Give the segment of each token of one prompt, padding left out."""
        segments: list[Segment] = []
        role, place = _START, 0
        while place < len(ids):
            following, length = self._delimiter_at(ids, place, role)
            if length:
                segments += ["special"] * length
                role, place = following, place + length
            else:
                segment = _SEGMENT_OF_ROLE.get(role, "user")
                segments.append("special" if ids[place] in self._special else segment)
                place += 1
        return self._with_thinking(ids, segments)

    def reply_segment(self, previous: int | None, segment: Segment) -> Segment:
        """Give the segment of the next reply token from the last one and its segment."""
        opening, closing = self._think
        if previous is not None and previous == opening:
            return "thinking"
        if previous is not None and previous == closing:
            return "reply"
        return segment

    def _delimiter_at(self, ids: Sequence[int], place: int, role: str) -> tuple[str, int]:
        """Find the longest delimiter that leads away from `role` at this place."""
        best = (role, 0)
        for (source, target), run in self._delimiters.items():
            length = len(run)
            if source == role and length > best[1] and tuple(ids[place : place + length]) == run:
                best = (target, length)
        return best

    def _with_thinking(self, ids: Sequence[int], segments: list[Segment]) -> list[Segment]:
        opening, closing = self._think
        if opening is None:
            return segments
        inside = False
        result: list[Segment] = []
        for token, segment in zip(ids, segments, strict=True):
            if token in (opening, closing):
                inside = token == opening
                result.append("special")
            else:
                result.append("thinking" if inside and segment == "reply" else segment)
        return result


def _learn(tokenizer: Any) -> dict[tuple[str, str], tuple[int, ...]]:
    delimiters: dict[tuple[str, str], tuple[int, ...]] = {}
    for roles in _PROBES:
        messages = [{"role": role, "content": _MARKS[role]} for role in roles]
        for prompt_opened in (False, True):
            try:
                text = tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=prompt_opened
                )
            except jinja2.TemplateError:
                continue  # the template has no such dialogue, as without a system role
            for key, run in _runs(tokenizer, text, roles, prompt_opened):
                delimiters.setdefault(key, run)
    return {key: run for key, run in delimiters.items() if run}


def _runs(
    tokenizer: Any, text: str, roles: Sequence[str], prompt_opened: bool
) -> list[tuple[tuple[str, str], tuple[int, ...]]]:
    """Cut one rendering at its marked contents into the token runs between them."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
    runs = []
    before, start = _START, 0
    for role in roles:
        found = text.find(_MARKS[role], start)
        if found < 0:
            return runs
        runs.append(((before, role), _between(spans, start, found)))
        before, start = role, found + len(_MARKS[role])
    last = "assistant" if prompt_opened else _END
    runs.append(((before, last), _between(spans, start, len(text))))
    return runs


def _between(
    spans: Sequence[tuple[int, tuple[int, int]]], start: int, end: int
) -> tuple[int, ...]:
    return tuple(token for token, (left, right) in spans if left >= start and right <= end)
