"""A control task: how much would a head learn that means nothing?

Each first word of a text is dealt a class at random (Hewitt and Liang 2019, section 2; Tak et al.
2025 ask for the first word itself). A head can only know it by heart. Selectivity, the accuracy
of the task less that of the control, tells what is legible from what a head can store.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

from emowatch.errors import CorpusError
from emowatch.studies.probing import relabelled
from emowatch.workshop.corpora import Corpus

WORD = re.compile(r"\w+")
FEWEST = 10
"""Test texts in each class, below which nothing would be said."""


def control_task(train: Corpus, test: Corpus, *, seed: int) -> tuple[Corpus, Corpus]:
    """Relabel two corpora by the first words of their texts.

    Test texts whose first word training never had are left out: their class could not be known.

    Raises:
        CorpusError: if too few test texts are left in a class.
    """
    n_labels = len(train.labels)
    dealt = [_dealt(example.text, n_labels, seed) for example in train.examples]
    known = {_first_word(example.text) for example in train.examples}
    held = [
        _dealt(example.text, n_labels, seed) if _first_word(example.text) in known else None
        for example in test.examples
    ]
    for number in range(n_labels):
        if held.count(number) < FEWEST or dealt.count(number) < FEWEST:
            raise CorpusError(
                f"Could not make the control task: of {len(train):,} training and {len(test):,} "
                f"test texts fewer than {FEWEST} begin with a word of class {number + 1} of "
                f"{n_labels}. Give more texts, or leave the control out with --no-control."
            )
    said = "classes dealt to first words"
    of_words = replace(
        test,
        examples=tuple(replace(e, group=_first_word(e.text) or e.group) for e in test.examples),
    )  # texts that begin alike are resampled together: chance dealt their class once
    return relabelled(train, dealt, said), relabelled(of_words, held, said)


def _first_word(text: str) -> str | None:
    found = WORD.search(text.casefold())
    return found[0] if found else None


def _dealt(text: str, n_labels: int, seed: int) -> int | None:
    word = _first_word(text)
    if word is None:
        return None
    digest = hashlib.blake2b(f"{seed}:{word}".encode(), digest_size=8, person=b"control").digest()
    return int.from_bytes(digest) % n_labels
