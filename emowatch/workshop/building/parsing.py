"""Read what models answer, strictly: what is not as it was asked for is no answer.

Two wrappings are taken off, since they are the habit of many models and leave no doubt: a thought
before the answer (``<think>…</think>``) and a code fence around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from emowatch.labels import NEUTRAL
from emowatch.text import clean_line

Problem = Literal[
    "cut",
    "not JSON",
    "wrong keys",
    "wrong value",
    "contradiction",
    "no tag",
    "several tags",
    "empty",
]
"""Why an answer cannot be read; these words are stable.

- ``cut``: it ended at the limit of tokens before its end
- ``not JSON``: it is not one JSON object and nothing else
- ``wrong keys``: a key is missing, or is there twice
- ``wrong value``: a value of the wrong type, or an emotion that was not asked about
- ``contradiction``: an emotion where it says that there is none, or the reverse
- ``no tag``, ``several tags``: the text is not between one pair of tags
- ``empty``: nothing is between the tags, or there is no answer at all
"""
_THOUGHT = re.compile(r"\s*(?:<think>)?.*?</think>", re.DOTALL)
"""Some templates open a thought themselves, so that the answer begins inside it."""
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL)
_KEYS = ("is_english", "has_emotion", "emotion")


class Unreadable(Exception):
    """An answer that is not as it was asked for."""

    def __init__(self, problem: Problem, detail: str) -> None:
        """Take why, and the words that show it."""
        super().__init__(problem)
        self.problem: Problem = problem
        self.detail = clean_line(detail, 80)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a labeller says of a text."""

    is_english: bool
    label: str | None
    """`None` where there is no emotion and no label for that."""


def read_verdict(text: str, labels: Sequence[str], *, is_cut: bool = False) -> Verdict:
    """Read the JSON answer of a labeller. More keys than the three are no harm.

    Raises:
        Unreadable: for anything else.
    """
    found = _object(text, is_cut)
    if missing := [key for key in _KEYS if key not in found]:
        raise Unreadable("wrong keys", f"no {missing[0]} in {text.strip()}")
    for key in _KEYS[:2]:
        if not isinstance(found[key], bool):
            raise Unreadable("wrong value", f"{key} is {json.dumps(found[key])}")
    emotion = found["emotion"]
    by_name = {label.casefold(): label for label in labels}
    label = by_name.get(emotion.strip().casefold()) if isinstance(emotion, str) else None
    if label is None and (emotion is not None or NEUTRAL in labels):
        raise Unreadable("wrong value", f"emotion is {json.dumps(emotion)}")
    if found["has_emotion"] != (label not in (None, NEUTRAL)):
        raise Unreadable(
            "contradiction",
            f"has_emotion is {json.dumps(found['has_emotion'])}, emotion {json.dumps(emotion)}",
        )
    return Verdict(found["is_english"], label)


def read_emotion(text: str, labels: Sequence[str], *, is_cut: bool = False) -> int:
    """Read the JSON answer of a judge that names one label alone; give its place in `labels`.

    Raises:
        Unreadable: for anything else.
    """
    found = _object(text, is_cut)
    if "emotion" not in found:
        raise Unreadable("wrong keys", f"no emotion in {text.strip()}")
    named = found["emotion"]
    places = {label.casefold(): place for place, label in enumerate(labels)}
    place = places.get(named.strip().casefold()) if isinstance(named, str) else None
    if place is None:
        raise Unreadable("wrong value", f"emotion is {json.dumps(named)}")
    return place


def read_tagged(text: str, tag: str, *, is_cut: bool = False) -> str:
    """Read the text between ``<tag>`` and ``</tag>``, without outer white space.

    Raises:
        Unreadable: if there is not exactly one pair of tags, or nothing in it.
    """
    answer = _without_thought(text)
    if not answer.strip():
        raise Unreadable("cut" if is_cut else "empty", text)
    starts, ends = answer.count(f"<{tag}>"), answer.count(f"</{tag}>")
    if starts > 1 or ends > 1:
        raise Unreadable("several tags", answer)
    begin, end = answer.find(f"<{tag}>"), answer.find(f"</{tag}>")
    if begin < 0 or end < begin:
        raise Unreadable("cut" if is_cut else "no tag", answer)
    inside = answer[begin + len(tag) + 2 : end].strip()
    if not any(character.isalnum() for character in inside):
        raise Unreadable("empty", answer)
    return inside


def _object(text: str, is_cut: bool) -> dict[str, Any]:
    answer = _without_thought(text).strip()
    if not answer:
        raise Unreadable("cut" if is_cut else "empty", text)
    if fenced := _FENCE.fullmatch(answer):
        answer = fenced.group(1)
    try:
        found = json.loads(answer, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise Unreadable("cut" if is_cut else "not JSON", text) from error
    if not isinstance(found, dict):
        raise Unreadable("not JSON", text)
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise Unreadable("wrong keys", json.dumps([key for key, _ in pairs]))
    return dict(pairs)


def _without_thought(text: str) -> str:
    return _THOUGHT.sub("", text, count=1) if _THOUGHT.match(text) else text
