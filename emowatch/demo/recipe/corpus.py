"""Read the public data sets as documents: lists of ``(role, text)`` turns.

Knows file layouts, not tokens. A story is a document too: the user asks for it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Turn = tuple[Role, str]
Document = tuple[Turn, ...]

ROLES: tuple[Role, Role] = ("user", "assistant")
STORY_REQUESTS = (
    "Tell me a story. {topic}.",
    "Write a short story: {topic}.",
    "Please tell me a story about this. {topic}.",
    "{topic}. What happens?",
    "Can you write a story where somebody feels {emotion}?",
    "Tell me about someone who feels {emotion}.",
)


def half(text: str) -> Literal["model", "bank"]:
    """Assign a text to the half that trains the demo model or the half that trains banks.

    The split hangs on the text alone, so that duplicates never straddle it; nor does a text as
    it is in its file and the same text tidied.
    """
    first = hashlib.sha256(tidy(text).lower().encode()).digest()[0]
    return "model" if first % 2 == 0 else "bank"


def pretraining_documents(data: Path) -> Iterator[tuple[str, Document]]:
    """Yield ``(source, document)`` from every pre-training set below `data`."""
    for row in _jsonl(data / "self-dialogue/dialogues.jsonl.gz"):
        yield "self-dialogue", alternate(row["turns"])
    for row in _jsonl(data / "topical-chat/valid.jsonl.gz"):
        yield "topical-chat", alternate([turn["text"] for turn in row["turns"]])
    for row in _jsonl(data / "taskmaster4/dialogues.jsonl.gz"):
        yield "taskmaster4", tuple((t["speaker"], tidy(t["text"])) for t in row["turns"])
    for number, row in enumerate(_jsonl(data / "stories171/stories.jsonl.gz")):
        request = STORY_REQUESTS[number % len(STORY_REQUESTS)]
        request = request.format(topic=row["topic"], emotion=row["emotion"])
        yield "stories171", (("user", request), ("assistant", tidy(row["text"])))
    for question, answer in small_talk(data):
        yield "small-talk", (("user", question), ("assistant", answer))


def small_talk(data: Path) -> Iterator[tuple[str, str]]:
    """Yield question and answer pairs of the PersonalityChat and ChatterBot sets."""
    for manner in ("Friendly", "Professional"):
        path = data / f"personalitychat/Queries_Responses_{manner}_QnAMaker.tsv"
        for line in path.read_text(encoding="utf-8-sig").splitlines()[1:]:
            question, answer = line.split("\t")[:2]
            yield tidy(question), tidy(answer)
    for path in sorted((data / "chatterbot").glob("*.yml")):
        yield from _chatterbot(path)


def goemotions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(text, label)`` of the single-label rows of an Ekman-mapped GoEmotions file."""
    labels = (path.parent / "labels.txt").read_text(encoding="utf-8").split()
    for line in path.read_text(encoding="utf-8").splitlines():
        text, ids, _ = line.split("\t")
        if "," not in ids:
            yield tidy(text), labels[int(ids)]


def alternate(turns: list[str]) -> Document:
    """Give consecutive turns the roles user and assistant in turn."""
    return tuple((ROLES[i % 2], tidy(turn)) for i, turn in enumerate(turns))


def tidy(text: str) -> str:
    """Fold white space and typographic quotes."""
    text = text.translate(str.maketrans("\u2018\u2019\u201c\u201d\u2014", "''\"\"-"))
    return re.sub(r"\s+", " ", text).strip()


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _chatterbot(path: Path) -> Iterator[tuple[str, str]]:
    """Read the two-level list of a ChatterBot YAML file; no YAML library for one layout."""
    question = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(("- - ", "  - ")):
            text = tidy(line[4:].strip().strip("'\""))
            if line.startswith("- - "):
                question = text
            elif question and text:
                yield question, text
