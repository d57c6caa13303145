"""Tags that models write by themselves around thoughts and calls, whatever their template says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from emowatch.model.segments.rendering import Part, Run
from emowatch.model.segments.spelling import Spelling, has_atom

_PAIRS: Sequence[tuple[Part, str, str]] = (
    ("thinking", "<think>", "</think>"),
    ("thinking", "[THINK]", "[/THINK]"),
    ("thinking", "<thinking>", "</thinking>"),
    ("thinking", "<thought>", "</thought>"),
    ("thinking", "<reasoning>", "</reasoning>"),
    ("thinking", "<seed:think>", "</seed:think>"),
    ("thinking", "◁think▷", "◁/think▷"),
    ("thinking", "<|START_THINKING|>", "<|END_THINKING|>"),
    ("thinking", "<|channel>thought", "<channel|>"),
    ("call", "<tool_call>", "</tool_call>"),
    ("call", "<|tool_call>", "<tool_call|>"),
    ("call", "<|tool_response>", "<tool_response|>"),
    ("call", "[TOOL_CALLS]", ""),
    ("call", "<|python_tag|>", ""),
)
"""What is opened, by what, and what closes it; without a tag the end of the message does."""
_CHANNELS: Sequence[tuple[Part, Part, str]] = (
    ("assistant", "thinking", "<|channel|>analysis<|message|>"),
    ("assistant", "assistant", "<|channel|>final<|message|>"),
    ("assistant", "assistant", "<|channel|>commentary<|message|>"),
    ("assistant", "call", "<|channel|>commentary to="),
    ("assistant", "header", "<|end|><|start|>assistant"),
    ("thinking", "header", "<|end|><|start|>assistant"),
)
"""What models write that name the channel of each message they begin."""


class Tags:
    """The tags as one tokenizer spells them.

    A tag that begins with a token of its own counts anywhere in an assistant's message. One that
    is text opens thoughts only at the start of a message: elsewhere it is a word, spoken of.
    """

    def __init__(self, spelling: Spelling, is_spelled: bool) -> None:
        """Spell the tags; `is_spelled` is false where no tokenizer can spell."""
        known = [tag for _, *pair in _PAIRS for tag in pair if tag]
        known += ["<|channel|>", *(text for _, _, text in _CHANNELS)]
        made = dict(zip(known, spelling.spell_tags(known), strict=True)) if is_spelled else {}
        pairs = [(part, made.get(first, ""), made.get(last, "")) for part, first, last in _PAIRS]
        thinking = [pair[1:] for pair in pairs if pair[0] == "thinking" and all(pair)]
        self.runs = [run for pair in pairs for run in _runs(*pair)]
        """Runs between the kinds of reply that may stand anywhere."""
        if has_atom(made.get("<|channel|>", "")):
            self.runs += [Run(source, to, made[text], True) for source, to, text in _CHANNELS]
        self.at_start = [first for first, _ in thinking if not has_atom(first[0])]
        """Tags of several tokens that open thoughts where a message begins."""
        self.closings = frozenset(last for _, last in thinking if len(last) == 1)
        """Closing tags of one token."""
        self._openings = frozenset(first for first, _ in thinking)
        either = sorted((tag for pair in thinking for tag in pair), key=len, reverse=True)
        self._either = re.compile("|".join(map(re.escape, either)) or "(?!)")

    def are_open(self, text: str) -> bool:
        """Tell whether the last tag of a text opens thoughts."""
        found = self._either.findall(text)
        return bool(found) and found[-1] in self._openings


def _runs(part: Part, first: str, last: str) -> Iterator[Run]:
    if has_atom(first[:1]):
        yield Run("assistant", part, first, True)
    if first and last:
        yield Run(part, "assistant", last, True)
        if len(last) == 1 and part == "thinking":
            yield Run("assistant", "assistant", last, True)
