"""What may come next at each place of a prompt or reply, as patterns over spelled text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from emowatch.model.segments.learning import learn
from emowatch.model.segments.rendering import Part, Run
from emowatch.model.segments.spelling import ATOM, Spelling, has_atom
from emowatch.model.segments.tags import Tags
from emowatch.records import Segment

SEGMENT_OF: dict[Part, Segment] = {
    "start": "system",
    "system": "system",
    "user": "user",
    "assistant": "reply",
    "thinking": "thinking",
    "call": "tool",
    "header": "reply",
    "tool": "tool",
    "end": "system",
}
"""What stands before and between messages was written by the template, as a list of tools."""
SPEAKING: tuple[Part, ...] = ("assistant", "thinking", "call", "header")
"""Parts of an assistant's message: what ends one of them ends any of them."""


@dataclass(frozen=True)
class Patterns:
    """Delimiters that lead away from one part, as one pattern with a group for each."""

    found: re.Pattern[str]
    runs: Sequence[Run]

    def run(self, match: re.Match[str]) -> Run:
        """Give the delimiter that was found."""
        assert match.lastindex is not None
        return self.runs[match.lastindex - 1]

    def is_begun(self, text: str) -> bool:
        """Tell whether a text is the beginning of a delimiter, or none yet."""
        return any(run.text.startswith(text) for run in self.runs)

    def is_inside(self, text: str) -> bool:
        """Tell whether a text ends with the beginning of a delimiter that begins with an atom."""
        return any(text[atom.start() :] in self.beginnings for atom in re.finditer(ATOM, text))

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """Beginnings of the delimiters that begin with an added token."""
        texts = [run.text for run in self.runs if has_atom(run.text[:1])]
        return frozenset(text[:end] for text in texts for end in range(1, len(text)))


class Grammar:
    """The delimiters of one tokenizer's template and of what models write by themselves."""

    def __init__(self, tokenizer: Any) -> None:
        """Learn the template; some dozens of renderings, no model."""
        self.spelling = Spelling(tokenizer)
        self.tags = Tags(self.spelling, is_spelled=tokenizer is not None)
        self._template = learn(tokenizer, self.spelling, self.tags)
        self.begins = self._template.begins
        self.has_template = bool(self._template.runs)
        inside = [run for run in self._template.runs if run.is_inside or run.source == "header"]
        said = [*(run._replace(text=run.text.strip()) for run in inside), *self.tags.runs]
        said = [run for run in said if run.source in SPEAKING and run.target in SPEAKING]
        self._of_prompt: dict[Part, Patterns] = {}
        self.of_reply = {part: _compiled(_from(part, said), None) for part in SPEAKING}
        opening = sorted({*self.tags.at_start, *self._template.thinking}, key=len, reverse=True)
        self.starts: Sequence[str] = opening
        words = "|".join(map(re.escape, opening)) or "(?!)"
        self.at_start = re.compile(rf"\s*(?:{words})\s*")
        """Finds a tag of several tokens where a message begins."""
        self.longest = max((len(run.text) for run in said), default=1)

    def of_prompt(self, part: Part) -> Patterns:
        """Give what may end a part of a prompt; compiled when it is first needed."""
        if part not in self._of_prompt:
            self._of_prompt[part] = self._patterns(part)
        return self._of_prompt[part]

    def _patterns(self, part: Part) -> Patterns:
        runs = _from(part, self._template.runs)
        if part == self.begins or part == "start":
            runs += _from("start", self._template.runs) + _from(self.begins, self._template.runs)
        opening = [run for run in self._template.runs if run.source == "end"]
        runs += [run for run in opening if part in ("end", "start") or has_atom(run.text[0])]
        if part in SPEAKING:
            runs += [run for run in self.tags.runs if run.source in _levels(part)]
        return _compiled(runs, self._template.frame)


def _levels(part: Part) -> tuple[Part, ...]:
    return (part, "assistant") if part in SPEAKING and part != "assistant" else (part,)


def _from(part: Part, runs: Sequence[Run]) -> list[Run]:
    """List the runs that lead away from a part, the nearest first."""
    return [run for level in _levels(part) for run in runs if run.source == level]


def _compiled(runs: Sequence[Run], frame: str | None) -> Patterns:
    nearest: dict[str, Run] = {}
    for run in runs:
        nearest.setdefault(run.text, run)
    ordered = sorted(nearest.values(), key=lambda run: len(run.text), reverse=True)
    groups = [f"({_tolerant(run)})" for run in ordered]
    if frame is not None:
        groups.append(f"({frame})")
        # A role that the template was never seen to write.
        ordered.append(Run("end", "system", ""))
    return Patterns(re.compile("|".join(groups) or "(?!)"), ordered)


def _tolerant(run: Run) -> str:
    """Take the blank lines around the tags of thoughts and calls as part of them."""
    text = re.escape(run.text)
    if not run.is_inside:
        return text
    is_end = run.source in ("thinking", "call") or run.source == run.target
    # Without a bound, text of blank lines alone would be searched in quadratic time.
    return rf"\s{{0,8}}{text}\s*" if is_end else rf"{text}\s*"
