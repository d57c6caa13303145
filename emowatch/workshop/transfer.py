"""Measure a bank on sets that others labelled, under an explicit map of their labels.

A set may lack labels of the bank. Two rules decide what a text is taken for, and both are told:
the highest score among the labels that the set has, whose chance is one in so many; and the
highest score of all, as a watch would name it, which is wrong whenever it names another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emowatch.bank.card import Interval
from emowatch.bank.keyword_free import KeywordFree
from emowatch.bank.probe_bank import ProbeBank
from emowatch.workshop.caveats import doubts
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.keyword_free import measure_keyword_free
from emowatch.workshop.keywords import Keywords
from emowatch.workshop.measuring import Bench, TestSet, read_test_set
from emowatch.workshop.metrics import Estimate, named, report


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Metrics of the primary layer on one set; each interval is 95 %, by bootstrap over groups."""

    data: str
    sha256: str
    n: int
    """Texts, after undersampling to the smallest class."""
    rows: int
    """States that were scored: several for each text where offsets are read."""
    labels: tuple[str, ...]
    """The bank's labels that the set has, in the bank's order."""
    translated: Mapping[str, str]
    """What each label of the set was taken for; ``-`` for left out."""
    quarantined: Mapping[str, int]
    """Rows that could not be used, by reason."""
    chance: float
    """One in as many labels as the set has."""
    balanced_accuracy: float
    """Of the highest score among these labels; so are the floors below."""
    balanced_accuracy_interval: Interval
    tfidf_balanced_accuracy: float | None
    tfidf_balanced_accuracy_interval: Interval | None
    shuffled_balanced_accuracy: float | None
    shuffled_balanced_accuracy_interval: Interval | None
    all_labels_chance: float
    """One in as many labels as the bank has."""
    all_labels_balanced_accuracy: float
    """Of the highest score among all labels of the bank."""
    all_labels_balanced_accuracy_interval: Interval
    ece: float
    """Of the scores as they are, over all labels."""
    ece_interval: Interval
    recall: Mapping[str, float]
    """By label, among the labels of the set."""
    recall_interval: Mapping[str, Interval]
    confusion: tuple[tuple[int, ...], ...]
    """Rows are the set's labels, columns all labels of the bank."""
    keyword_free: KeywordFree | None
    note: str


def measure_transfer(
    bench: Bench, corpus: Corpus, work: Path, *, keywords: Keywords | None = None
) -> Transfer:
    """Measure a bank on one set, undersampled to its smallest class.

    Args:
        bench: the bank with its floors and its model.
        corpus: labelled texts, read with the bank's labels.
        work: folder for states and replies.
        keywords: what is masked to measure the bank without them; nothing where `None`.

    Raises:
        TrainingError: if no text can be read.
    """
    card, seed = bench.bank.card, bench.options.seed
    corpus = only_labels_present(corpus)
    tested = read_test_set(bench, corpus, (card.primary,), work)
    rows, classes = tested.rows, bench.classes(corpus)
    labels = rows.labels.numpy()

    def scores_of(bank: ProbeBank) -> np.ndarray:
        heads = bank.heads.only([bench.place])
        return heads.scores(rows.states, rows.offsets).numpy()[0]  # type: ignore[no-any-return]

    scores = scores_of(bench.bank)
    among = report(scores[:, classes], labels, rows.groups, seed=seed)
    of_all = report(scores, np.array(classes)[labels], rows.groups, seed=seed)
    null = None
    if bench.shuffled is not None:
        null = report(
            scores_of(bench.shuffled)[:, classes], labels, rows.groups, seed=seed
        ).balanced_accuracy
    floor = _floor(bench, tested)
    measured = tested.corpus
    recalls = {
        n: named("recall", e) for n, e in zip(corpus.labels, among.recalls, strict=True) if e
    }
    return Transfer(
        data=corpus.source,
        sha256=corpus.sha256,
        n=len(set(rows.examples)),
        rows=len(labels),
        labels=corpus.labels,
        translated=dict(sorted(corpus.translated.items())),
        quarantined={str(why): n for why, n in corpus.quarantine_counts().items()},
        chance=1 / len(corpus.labels),
        **named("balanced_accuracy", among.balanced_accuracy),
        **named("tfidf_balanced_accuracy", floor),
        **named("shuffled_balanced_accuracy", null),
        all_labels_chance=1 / len(card.labels),
        **named("all_labels_balanced_accuracy", of_all.balanced_accuracy),
        **named("ece", of_all.ece),
        recall={name: found["recall"] for name, found in recalls.items()},
        recall_interval={name: found["recall_interval"] for name, found in recalls.items()},
        confusion=tuple(tuple(int(n) for n in of_all.confusion[place]) for place in classes),
        keyword_free=measure_keyword_free(bench, tested, keywords, work) if keywords else None,
        note=" ".join([*bench.doubts, *doubts(measured, tested.prepared, bench.training, card)]),
    )


def only_labels_present(corpus: Corpus) -> Corpus:
    """Renumber the classes of a corpus so that each has an example."""
    present = [place for place, n in enumerate(corpus.counts().values()) if n]
    new = {old: number for number, old in enumerate(present)}
    return replace(
        corpus,
        labels=tuple(corpus.labels[place] for place in present),
        examples=tuple(replace(e, label=new[e.label]) for e in corpus.examples),
    )


def _floor(bench: Bench, tested: TestSet) -> Estimate | None:
    """Measure the text baseline among the labels of the set."""
    if bench.baseline is None:
        return None
    corpus, numbers = tested.corpus, tested.prepared.examples
    group_of = corpus.group_numbers
    scores = bench.baseline.scores([corpus.examples[n].text for n in numbers])
    return report(
        scores[:, bench.classes(corpus)],
        [corpus.examples[n].label for n in numbers],
        [group_of[n] for n in numbers],
        seed=bench.options.seed,
    ).balanced_accuracy
