"""What a study is done with: a model, labelled texts on two sides, and where work is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emowatch.bank.heads import HeadKind
from emowatch.errors import CorpusError, UsageError
from emowatch.model.loading import LoadedModel
from emowatch.text import clean_line
from emowatch.workshop.corpora import Corpus, read_corpus, split_by_group, undersample
from emowatch.workshop.options import BATCH_TOKENS
from emowatch.workshop.preparation import Report, quiet

HELD_OUT = 0.1
"""Share of groups that a study measures on where no test set is named, as in paper A."""
FEWEST = 10
"""Test texts of each label, below which figures would say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all studies of a run share."""

    loaded: LoadedModel
    train: Corpus
    test: Corpus
    """Classes of equal size."""
    work: Path
    """States, replies and banks are kept here; what is there already is not made again."""
    layers: str = "all"
    """Layers that are read: ``all``, numbers or percents of the depth."""
    head: HeadKind = "mlp"
    template: bool = True
    """Whether texts go through the chat template."""
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS
    report: Report = quiet
    limit: int | None = None
    """Of the training texts, where there was one."""
    reading: Mapping[str, Any] = field(default_factory=dict)
    """How `train` was read, for the record of the banks."""

    @property
    def described(self) -> dict[str, Any]:
        """The settings that every study was run with."""
        aside = {
            f"{side} put aside": {str(why): n for why, n in found.items()}
            for side, corpus in (("training rows", self.train), ("test rows", self.test))
            if (found := corpus.quarantine_counts())
        }
        return {
            "model": self.loaded.name,
            "dtype": str(next(self.loaded.model.parameters()).dtype).removeprefix("torch."),
            "training texts": self.train.source,
            "test texts": self.test.source,
            "limit": self.limit,
            "hash of all texts": self._digest(),
            **aside,
            "layers": self.layers,
            "head": self.head,
            "chat template": self.template,
            "seed": self.seed,
        }

    def _digest(self) -> str:
        """Tell these texts and their labels from others."""
        sides = [
            [(e.text, side.labels[e.label], e.group) for e in side.examples]
            for side in (self.train, self.test)
        ]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()[:16]

    def require_template(self) -> None:
        """Refuse a model without a chat template where texts are to go through it.

        Raises:
            UsageError: saying what can be done.
        """
        if self.template and not self.loaded.tokenizer.chat_template:
            raise UsageError(
                f"Could not study templated text: the tokenizer of {self.loaded.name!r} has no "
                "chat template. Name an instruction-tuned model, or pass --no-template to read "
                "the texts as they are."
            )


def open_texts(
    data: str,
    test: str | None,
    *,
    seed: int,
    limit: int | None = None,
    **reading: Any,
) -> tuple[Corpus, Corpus]:
    """Read the texts to learn from and those to measure on.

    Without `test` a tenth of the groups of `data` is held out. The texts to measure on are cut to
    classes of equal size, as in paper A, and those that training has are left out; `limit` is of
    `data` alone.

    Raises:
        CorpusError: as `read_corpus`, where training has all texts of `test`, and where fewer
            than `FEWEST` texts of a label are left to measure on.
        RetryableError: as `read_corpus`.
    """
    whole = read_corpus(data, limit=limit, **reading)
    if test is not None:
        split = {"split": "test"} if reading.get("split") else {}
        held = read_corpus(test, labels=whole.labels, min_per_class=0, **reading | split)
        return whole, _equal(_enough(_unseen(held, whole), "Name others with --test."), seed)
    # Under names of its own: training draws its validation side from the same seed, and groups
    # that lie at one end of that draw would all be here.
    parts = split_by_group(
        [f"held out {example.group}" for example in whole.examples],
        fractions={"train": 1 - HELD_OUT, "test": HELD_OUT},
        seed=seed,
    )
    learned = _part(whole, parts["train"].tolist(), f"{1 - HELD_OUT:.0%} of the groups")
    held = _part(whole, parts["test"].tolist(), f"{HELD_OUT:.0%} of the groups")
    advice = "Name texts to measure on with --test, or give more"
    advice += "." if limit is None else f" (--limit is {limit:,})."
    return learned, _equal(_enough(held, advice), seed)


def _enough(held: Corpus, advice: str) -> Corpus:
    """Refuse texts of which a label has too few: the others would be cut to as many."""
    few = {label: n for label, n in held.counts().items() if n < FEWEST}
    if few:
        listed = ", ".join(f"{clean_line(label, 40)} {n}" for label, n in few.items())
        aside = ", ".join(f"{n:,} {why}" for why, n in held.quarantine_counts().items())
        raise CorpusError(
            f"Could not measure on {clean_line(held.source)!r}: each label needs {FEWEST} texts, "
            f"and there are only {listed}. {advice}"
            + (f" Rows put aside: {aside}." if aside else "")
        )
    return held


def _unseen(held: Corpus, learned: Corpus) -> Corpus:
    """Leave out what training has; how many that were stands in the source, which is shown."""
    seen = {example.group for example in learned.examples}
    kept = tuple(example for example in held.examples if example.group not in seen)
    left_out = len(held) - len(kept)
    if not left_out:
        return held
    if not kept:
        raise CorpusError(
            f"Could not measure on {clean_line(held.source)!r}: all of its {len(held):,} texts are "
            "among those to learn from. Name others with --test, or leave it out."
        )
    told = f"less {left_out:,} that training has"
    return replace(held, examples=kept, source=f"{held.source} ({told})")


def _equal(corpus: Corpus, seed: int) -> Corpus:
    labels = np.array([example.label for example in corpus.examples])
    chosen = undersample(labels, seed=seed).tolist()
    return replace(corpus, examples=tuple(corpus.examples[number] for number in chosen))


def _part(whole: Corpus, chosen: list[int], which: str) -> Corpus:
    """Take some examples; the hash is another, so that nobody takes the part for the file."""
    digest = hashlib.sha256(f"{whole.sha256} {which} {chosen}".encode()).hexdigest()
    return replace(
        whole,
        examples=tuple(whole.examples[number] for number in chosen),
        source=f"{whole.source} ({which})",
        address=whole.address or whole.source,
        sha256=digest,
    )
