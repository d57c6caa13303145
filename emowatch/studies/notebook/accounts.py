"""Read crowd-enVENT in the format it is published in: one account of an event in each row.

Troiano, Oberländer and Klinger 2023 (Computational Linguistics 49.1) asked writers for events that
made them feel an emotion, and how they appraised them. The emotion's name is masked in the texts.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emowatch.errors import CorpusError
from emowatch.text import clean_line, is_decoded
from emowatch.workshop.corpora.files import Progress, check_file, file_errors
from emowatch.workshop.corpora.formats import open_text_table
from emowatch.workshop.corpora.tables import Row

ENCODING = "iso-8859-1"
"""Of the published file."""
TEXT, EMOTION = "hidden_emo_text", "emotion"
APPRAISALS = (
    "predict_event",
    "pleasantness",
    "other_responsblt",
    "chance_control",
    "suddenness",
    "familiarity",
    "unpleasantness",
    "goal_relevance",
    "self_responsblt",
    "predict_conseq",
    "goal_support",
    "urgency",
    "self_control",
    "other_control",
    "accept_conseq",
    "standards",
    "social_norms",
    "attention",
    "not_consider",
    "effort",
)
"""The 20 dimensions that Tak et al. 2025 predict, by the file's own names, each rated 1 to 5."""
FEWEST = 10
"""Accounts of an emotion, below which nothing would be learned of it."""
SHOWN = 10

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The usable rows of the file, and how many are not."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    """Names of the emotions, by alphabet."""
    emotions: Ints
    """``[texts]``: index into `labels`."""
    appraisals: Doubles
    """``[texts, 20]``: ratings from 1 to 5, in the order of `APPRAISALS`."""
    rows: tuple[int, ...]
    """Line of each in the file."""
    source: str
    sha256: str
    put_aside: Mapping[str, int]
    """Rows that cannot be used, by reason."""
    encoding: str
    """That it was read in."""
    limit: int | None
    """Of rows, where there was one."""

    def __len__(self) -> int:
        """Count the usable rows."""
        return len(self.texts)

    @property
    def groups(self) -> Ints:
        """Number the texts ``[texts]`` so that copies share a number."""
        plain = [" ".join(unicodedata.normalize("NFKC", t).casefold().split()) for t in self.texts]
        numbers: Ints = np.unique(plain, return_inverse=True)[1].astype(np.int64)
        return numbers

    def counts(self) -> dict[str, int]:
        """Count the accounts of each emotion."""
        found = np.bincount(self.emotions, minlength=len(self.labels)).tolist()
        return dict(zip(self.labels, found, strict=True))

    def only(self, chosen: Sequence[int]) -> Accounts:
        """Keep some of them, in the order of the file; the emotions stay those of all."""
        places = sorted(chosen)
        return replace(
            self,
            texts=tuple(self.texts[place] for place in places),
            emotions=self.emotions[places],
            appraisals=self.appraisals[places],
            rows=tuple(self.rows[place] for place in places),
        )


def read_accounts(
    source: str | Path, *, encoding: str = ENCODING, limit: int | None = None
) -> Accounts:
    """Read the file; rows that cannot be used are counted by reason.

    Args:
        source: the CSV file.
        encoding: of the file.
        limit: keep at most so many, those whose texts have the smallest hashes.

    Raises:
        CorpusError: if the file cannot be read or is in another encoding, if a column is missing,
            or if an emotion has too few usable rows.
    """
    path, progress = Path(source), Progress()
    rows: list[Row] = []
    with file_errors(path, progress):
        suffix = check_file(path)
        if suffix != ".csv":
            raise CorpusError(
                f"Could not read {clean_line(str(path))!r}: the study reads crowd-enVENT as it is "
                "published, a CSV file such as enVent_gen_Data.csv."
            )
        with open_text_table(path, suffix, encoding=encoding) as table:
            _check_columns(table.columns, path, encoding)
            for row in table.rows((EMOTION, TEXT, *APPRAISALS)):
                progress.rows += 1
                rows.append(row)
            sha256 = table.fingerprint()
    _check_encoding(rows, path, encoding)
    whole = replace(_usable(rows, str(path), sha256, encoding), limit=limit)
    kept = whole if limit is None else whole.only(_smallest(whole.texts, limit))
    _check_classes(kept, limit)
    return kept


def _check_columns(columns: Sequence[str], path: Path, encoding: str) -> None:
    missing = [name for name in (EMOTION, TEXT, *APPRAISALS) if columns.count(name) != 1]
    if not missing:
        return
    shown = clean_line(str(path))
    first = columns[0] if columns else ""
    for mark, name in (("\xff\xfe", "utf-16"), ("\xfe\xff", "utf-16"), ("\xef\xbb\xbf", "utf-8")):
        if first.startswith(mark):
            raise CorpusError(
                f"Could not read {shown!r} as {encoding}: it begins like a file in {name.upper()}. "
                f"Pass --encoding {name}."
            )
    listed = ", ".join(clean_line(name, 40) for name in columns[:SHOWN])
    more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    raise CorpusError(
        f"Could not read {shown!r} as crowd-enVENT: there is no column {', '.join(missing[:SHOWN])}"
        f"{' …' if len(missing) > SHOWN else ''}. Its columns are {listed}{more}. Give the file as "
        "it is published (enVent_gen_Data.csv); other labelled text is for `emowatch study layers`."
    )


def _check_encoding(rows: Sequence[Row], path: Path, encoding: str) -> None:
    """Refuse UTF-8 that was read as an encoding in which every byte is a character."""
    texts = [str(row.values.get(TEXT, "")) for row in rows]
    beyond = [text for text in texts if not text.isascii() and is_decoded(text)]
    if encoding.lower().replace("_", "-") not in ("iso-8859-1", "latin-1", "latin1", "cp1252"):
        return
    if beyond and all(_is_utf8(text, encoding) for text in beyond):
        raise CorpusError(
            f"Could not read {clean_line(str(path))!r} as {encoding}: what its texts hold beyond "
            "ASCII is UTF-8. Pass --encoding utf-8."
        )


def _is_utf8(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding).decode("utf-8")
    except UnicodeError:
        return False
    return True


def _usable(rows: Sequence[Row], source: str, sha256: str, encoding: str) -> Accounts:
    put_aside: Counter[str] = Counter()
    texts, names, ratings, numbers = [], [], [], []
    for row in rows:
        text, emotion = (str(row.values.get(name, "")) for name in (TEXT, EMOTION))
        rated = [_rating(row.values.get(name)) for name in APPRAISALS]
        reason = _reason(row, text, emotion, rated)
        if reason:
            put_aside[reason] += 1
            continue
        texts.append(text)
        names.append(emotion.strip())
        ratings.append(rated)
        numbers.append(row.number)
    labels = tuple(sorted(set(names)))
    return Accounts(
        texts=tuple(texts),
        labels=labels,
        emotions=np.array([labels.index(name) for name in names], dtype=np.int64),
        appraisals=np.array(ratings, dtype=np.float64).reshape(-1, len(APPRAISALS)),
        rows=tuple(numbers),
        source=source,
        sha256=sha256,
        put_aside=dict(put_aside.most_common()),
        encoding=encoding,
        limit=None,
    )


def _reason(row: Row, text: str, emotion: str, rated: Sequence[float | None]) -> str | None:
    """Say why a row cannot be used; `None` where it can."""
    if row.problem is not None:
        return row.problem_reason
    if not is_decoded(text) or not is_decoded(emotion):
        return "undecodable bytes"
    if not text.strip():
        return "empty text"
    if not emotion.strip():
        return "no emotion"
    if None in rated:
        return "an appraisal that is no rating from 1 to 5"
    return None


def _rating(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 1 <= number <= 5 else None


def _smallest(texts: Sequence[str], limit: int) -> list[int]:
    def rank(place: int) -> bytes:
        return hashlib.blake2b(texts[place].encode(), digest_size=8, person=b"limit").digest()

    return sorted(range(len(texts)), key=rank)[:limit]


def _check_classes(accounts: Accounts, limit: int | None) -> None:
    shown = clean_line(accounts.source)
    aside = ", ".join(f"{n:,} {reason}" for reason, n in accounts.put_aside.items())
    said = f" Rows put aside: {aside}." if aside else ""
    if not len(accounts):
        raise CorpusError(f"Could not use {shown!r}: none of its rows is usable.{said}")
    few = {label: n for label, n in accounts.counts().items() if n < FEWEST}
    if few or len(accounts.labels) < 3:
        listed = ", ".join(f"{clean_line(label, 40)} {n}" for label, n in list(few.items())[:SHOWN])
        why = f"too few for {listed}" if few else f"only {len(accounts.labels)} emotions"
        more = f" Raise --limit, which is {limit:,}." if limit is not None else ""
        raise CorpusError(
            f"Could not use {shown!r}: {why}; {FEWEST} usable rows of each emotion, and three "
            f"emotions, are the fewest.{more}{said}"
        )
