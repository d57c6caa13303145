"""Made-up labelled texts and passages, small enough for a model of three random blocks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from emowatch.workshop.corpora import Corpus, read_corpus
from emowatch.workshop.readouts import Passage

WORDS = {
    "joy": ("zzz", "zoo", "zip"),
    "neutral": ("###", "#1#", "#2#"),
    "sadness": ("aaa", "aha", "ava"),
}
"""Words that stand in the texts of one class only."""


def write_texts(
    path: Path, per_class: int = 20, seed: int = 0, classes: Sequence[str] = tuple(WORDS)
) -> Path:
    """Write a TSV of short texts whose words tell the class."""
    rng = random.Random(seed)
    rows = [
        (" ".join(rng.choices(WORDS[label], k=3)) + f" {seed}{number}", label)
        for number in range(per_class)
        for label in classes
    ]
    lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_texts(path: Path, per_class: int = 20, seed: int = 0) -> Corpus:
    """Write such a file and read it as the command line does."""
    return read_corpus(write_texts(path, per_class, seed), labels=tuple(WORDS), min_per_class=0)


def random_passages(
    count: int, *, places: int = 3, longest: int = 24, seed: int = 0, pooled: bool = False
) -> list[Passage]:
    """Draw passages of different lengths with places in no order of theirs."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        ids = tuple(rng.randrange(6, 262) for _ in range(rng.randint(places, longest)))
        where = tuple(rng.sample(range(len(ids)), places))
        made.append(Passage(ids, where, tuple(rng.randrange(9) for _ in where), pooled))
    return made
