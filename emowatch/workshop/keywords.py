"""Words that name an emotion, and texts in which they are masked. English, as far as built in."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import snowballstemmer

from emowatch.errors import UsageError
from emowatch.text import clean_line, is_printable
from emowatch.workshop.corpora.objects import read_object

MASK = "..."
"""What stands for a word, as in crowd-enVENT's texts with the emotion hidden."""
MAX_PHRASE = 100
_BEFORE, _AFTER = r"(?<![^\W_])", r"(?![^\W_])"
"""No letter or digit beside it; an underscore, as of Markdown, is neither."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_LETTERS = re.compile(r"[^\W\d_]{3,}")
_STEMMER = snowballstemmer.stemmer("english")
Span = tuple[int, int]


@dataclass(frozen=True)
class Keywords:
    """Words and phrases that name the emotions of a bank."""

    forms: Mapping[str, Sequence[str]]
    """Of each label: words and phrases as they stand in texts."""
    stems: Mapping[str, Sequence[str]]
    """Of each label: stems of words, by Snowball's English stemmer."""
    source: str
    """Where they come from, in words."""

    @cached_property
    def sha256(self) -> str:
        """Tell these words from others."""
        words = [{k: list(v) for k, v in table.items()} for table in (self.forms, self.stems)]
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        """Count words, phrases and stems of all labels, each once."""
        return len(_all(self.forms)) + len(self._stems)

    def spans(self, text: str) -> list[Span]:
        """Find the keywords of all labels in a text: start and end of each, in order.

        Which label a text has plays no part, so that what is masked cannot give it away.
        """
        found = [match.span() for match in self._pattern.finditer(text)] if self._pattern else []
        for word in _LETTERS.finditer(text) if self._stems else ():
            stem = _STEMMER.stemWord(word[0].casefold())
            if stem in self._stems and not _overlap(word.span(), found):
                found.append(word.span())
        return sorted(found)

    def masked(self, text: str) -> str:
        """Return a text with each keyword masked."""
        return _with_masks(text, self.spans(text))

    def masked_elsewhere(self, text: str, seed: int) -> tuple[str, int]:
        """Mask as many other words as there are keywords, and return how many that were.

        They are drawn at random, by the seed and the text; where a text has fewer, all are.
        """
        keywords = self.spans(text)
        others = [
            word.span() for word in _WORD.finditer(text) if not _overlap(word.span(), keywords)
        ]
        chosen = random.Random(f"{seed}:{text}").sample(others, min(len(keywords), len(others)))
        return _with_masks(text, sorted(chosen)), len(chosen)

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        longest_first = sorted(_all(self.forms), key=lambda form: (-len(form), form))
        if not longest_first:
            return None
        spellings = (r"\s+".join(map(re.escape, form.split())) for form in longest_first)
        return re.compile(f"{_BEFORE}(?:{'|'.join(spellings)}){_AFTER}", re.IGNORECASE)

    @cached_property
    def _stems(self) -> frozenset[str]:
        return frozenset(_all(self.stems))


def keywords_for(labels: Sequence[str]) -> Keywords:
    """Give the built-in list of each label; of others, the words of the label, inflected.

    A label without letters, such as a number, has none. Of a label of several words those that
    only join others, as "of" and "the", are left alone.
    """
    text = files("emowatch.workshop").joinpath("keywords.json").read_text(encoding="utf-8")
    built_in = json.loads(text)
    forms, stems = {}, {}
    for label in labels:
        if label.casefold() in built_in:
            forms[label] = built_in[label.casefold()]
        elif words := _telling(label):
            stems[label] = sorted(set(_STEMMER.stemWords(words)))
    parts = [
        *(["built-in lists"] if forms else []),
        *([f"the words of the labels {', '.join(stems)}, inflected"] if stems else []),
    ]
    return Keywords(forms, stems, " and ".join(parts) or "none")


def _telling(label: str) -> list[str]:
    """Give the words of a label, without function words where it has others."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = _LETTERS.findall(label.casefold())
    return [word for word in words if word not in ENGLISH_STOP_WORDS] or words


def read_keywords(path: Path, labels: Sequence[str]) -> Keywords:
    """Read a JSON file: an object of labels, each with a list of words and phrases.

    Nothing is inflected, and labels it does not name have none.

    Raises:
        UsageError: for a file that is no such thing, or names a label that the bank has not.
    """
    shown = f"Could not use the keywords in {clean_line(str(path), 200)!r} (--keywords)"
    table = read_object(path, shown, '{"joy": ["joy", "happy"]}')
    known = {label.casefold(): label for label in labels}
    forms = {}
    for name, words in table.items():
        if name.casefold() not in known:
            near = get_close_matches(name.casefold(), known, 1)
            meant = f" Did you mean {known[near[0]]!r}?" if near else ""
            raise UsageError(
                f"{shown}: the bank has no label {clean_line(name, 60)!r}.{meant} Its labels are "
                f"{clean_line(', '.join(labels))}."
            )
        forms[known[name.casefold()]] = _checked(words, name, shown)
    return Keywords(forms, {}, f"the file {clean_line(path.name, 80)}")


def _checked(words: object, label: str, shown: str) -> list[str]:
    """Refuse what is no list of words."""
    if not isinstance(words, list):
        raise UsageError(f"{shown}: give the label {clean_line(label, 60)!r} a list of words.")
    for word in words:
        if (
            not isinstance(word, str)
            or not is_printable(word)
            or not _WORD.search(word)
            or len(word) > MAX_PHRASE
        ):
            raise UsageError(
                f"{shown}: {clean_line(repr(word), 60)}, given for {clean_line(label, 60)!r}, is "
                f"no word or phrase of 1 to {MAX_PHRASE} printable characters. Mend or remove it."
            )
    return list(words)


def _all(table: Mapping[str, Iterable[str]]) -> set[str]:
    return {word.casefold() for words in table.values() for word in words}


def _overlap(span: Span, others: Iterable[Span]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in others)


def _with_masks(text: str, spans: Sequence[Span]) -> str:
    """Put masks in place of ascending spans."""
    parts, last = [], 0
    for start, end in spans:
        parts += [text[last:start], MASK]
        last = end
    return "".join([*parts, text[last:]])
