"""A small file in the format of crowd-enVENT, with texts written for the tests."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

from emowatch.studies.notebook.accounts import APPRAISALS, EMOTION, TEXT

EMOTIONS = {
    "fear": (("a dog barked at me", "the lift got stuck", "I heard steps"), 1, 5),
    "joy": (("my team won", "I got the job", "my friend came to stay"), 5, 1),
    "relief": (("the test was fine", "the bus came at last", "my keys were found"), 4, 2),
}
"""For each emotion some texts, and how pleasant and unpleasant they are rated."""
PLACES = ("at home", "in town", "on the way", "at work", "by the sea", "last week")
STARTS = ("I felt ... when", "It was", "Then", "When I was out,")


def make_rows(per_emotion: int, seed: int = 0) -> list[dict[str, str]]:
    """Make rows that differ, with ratings that go with the emotion."""
    drawn = random.Random(seed)
    rows: list[dict[str, str]] = []
    for emotion, (texts, pleasant, unpleasant) in EMOTIONS.items():
        for number in range(per_emotion):
            text = f"{drawn.choice(STARTS)} {texts[number % 3]} {drawn.choice(PLACES)} {number}"
            row = {name: str(drawn.randint(1, 5)) for name in APPRAISALS}
            row |= {"pleasantness": str(pleasant), "unpleasantness": str(unpleasant)}
            rows.append({"text_id": str(len(rows)), EMOTION: emotion, TEXT: text} | row)
    drawn.shuffle(rows)
    return rows


def as_csv(rows: list[dict[str, str]]) -> str:
    """Write rows as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_envent(path: Path, per_emotion: int = 20, encoding: str = "iso-8859-1") -> Path:
    """Write such a file."""
    path.write_text(as_csv(make_rows(per_emotion)), encoding=encoding)
    return path
