"""Measure a bank on texts in which no word names the emotion.

Keywords of all labels are masked in every text. Three comparisons keep the figure honest: as many
random other words masked instead, texts that held no keyword to begin with, and the text baseline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from emowatch.bank.keyword_free import KeywordFree, VersionMetrics
from emowatch.bank.probe_bank import ProbeBank
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.evaluation import TestRows
from emowatch.workshop.keywords import Keywords
from emowatch.workshop.measuring import Bench, TestSet, read_rows
from emowatch.workshop.metrics import Estimate, Predictions, fall, named, report
from emowatch.workshop.outputs import STATES_FOLDER
from emowatch.workshop.preparation import prepare_some

FEWEST = 20
"""Texts without a keyword from which on they are measured by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """One version of the test texts, and what the heads and their floors make of it."""

    heads: Predictions
    shuffled: Predictions | None
    examples: Sequence[int]
    """Number of the example of each row of the two above."""
    baseline: Predictions | None
    texts: Sequence[int]
    """Number of the example of each row of the baseline."""


def measure_keyword_free(
    bench: Bench, tested: TestSet, keywords: Keywords, work: Path
) -> KeywordFree:
    """Measure the primary layer again on a test set without keywords.

    Only texts that are changed are read again; of the others the states are there already.
    Replies that the model writes are written anew for those, into `work`.

    Args:
        bench: the bank with its floors.
        tested: the test set, read at the primary layer, or at all layers of the bank.
        keywords: what is masked.
        work: folder for states and replies.
    """
    corpus, seed = tested.corpus, bench.options.seed
    texts = [example.text for example in corpus.examples]
    held = [len(keywords.spans(text)) for text in texts]
    elsewhere = [keywords.masked_elsewhere(text, seed) for text in texts]
    rows = _at_primary(bench, tested.rows)
    whole = _version(bench, corpus, texts, rows)
    masked = _changed(
        bench, corpus, [keywords.masked(text) for text in texts], rows, work / "masked"
    )
    control = _changed(bench, corpus, [text for text, _ in elsewhere], rows, work / "control")
    of_words = None
    if whole.baseline is not None and masked.baseline is not None:
        of_words = fall(whole.baseline, masked.baseline, seed=seed)
    bare = {number for number, n in enumerate(held) if not n} & set(rows.examples)
    labels = {corpus.examples[number].label for number in bare}
    is_enough = len(bare) >= FEWEST and len(labels) > 1
    return KeywordFree(
        lexicon=f"{keywords.source} ({len(keywords)} words)",
        lexicon_sha256=keywords.sha256,
        share=round(sum(n > 0 for n in held) / len(held), 4),
        share_by_label=_shares(corpus, held),
        masked_words=sum(held),
        control_words=sum(n for _, n in elsewhere),
        whole=_metrics(whole, seed),
        masked=_metrics(masked, seed),
        control=_metrics(control, seed),
        without=_metrics(_only(whole, bare), seed) if is_enough else None,
        **named("fall", fall(whole.heads, masked.heads, seed=seed)),
        **named("fall_beyond_control", fall(control.heads, masked.heads, seed=seed)),
        **named("tfidf_fall", of_words),
    )


def _at_primary(bench: Bench, rows: TestRows) -> TestRows:
    """Keep the states of the primary layer, of one or of all layers of the bank."""
    place = bench.place if len(rows.states) > 1 else 0
    return replace(rows, states=rows.states[place : place + 1])


def _changed(
    bench: Bench, corpus: Corpus, texts: Sequence[str], rows: TestRows, work: Path
) -> _Version:
    """Read the texts that differ from the corpus's own, and join them to the rows of the rest."""
    examples = tuple(replace(e, text=t) for e, t in zip(corpus.examples, texts, strict=True))
    other = replace(corpus, examples=examples)
    changed = [n for n, e in enumerate(corpus.examples) if e.text != texts[n]]

    def report_on(step: str, done: int, total: int) -> None:
        bench.report(f"{step} ({work.name})", done, total)

    prepared = prepare_some(other, changed, bench.loaded, bench.options, work, report_on)
    same = np.isin(rows.examples, changed, invert=True)
    kept = _rows(rows, same)
    if prepared.passages:
        primary = (bench.bank.card.primary,)
        folder = work / STATES_FOLDER
        kept = _joined(kept, read_rows(bench, other, prepared, primary, folder, report_on))
    return _version(bench, other, texts, kept)


def _rows(rows: TestRows, chosen: np.ndarray) -> TestRows:
    """Keep some rows, by a mask."""
    mask = torch.from_numpy(chosen)
    return TestRows(
        states=rows.states[:, mask],
        labels=rows.labels[mask],
        offsets=rows.offsets[mask],
        examples=np.array(rows.examples)[chosen].tolist(),
        groups=np.array(rows.groups)[chosen].tolist(),
    )


def _joined(first: TestRows, second: TestRows) -> TestRows:
    """Put rows of the same layers after one another."""
    return TestRows(
        states=torch.cat([first.states, second.states], dim=1),
        labels=torch.cat([first.labels, second.labels]),
        offsets=torch.cat([first.offsets, second.offsets]),
        examples=[*first.examples, *second.examples],
        groups=[*first.groups, *second.groups],
    )


def _version(bench: Bench, corpus: Corpus, texts: Sequence[str], rows: TestRows) -> _Version:
    """Score rows with heads and null, and the texts they come from with the baseline."""
    classes = bench.classes(corpus)

    def scored(bank: ProbeBank) -> Predictions:
        scores = bank.heads.only([bench.place]).scores(rows.states, rows.offsets)[0]
        return Predictions(
            scores.numpy()[:, classes], rows.labels.numpy(), np.array(rows.groups, dtype=np.int64)
        )

    numbers = sorted(set(rows.examples))
    baseline = None
    if bench.baseline is not None:
        group_of = corpus.group_numbers
        baseline = Predictions(
            bench.baseline.scores([texts[n] for n in numbers])[:, classes],
            np.array([corpus.examples[n].label for n in numbers]),
            np.array([group_of[n] for n in numbers]),
        )
    return _Version(
        heads=scored(bench.bank),
        shuffled=None if bench.shuffled is None else scored(bench.shuffled),
        examples=rows.examples,
        baseline=baseline,
        texts=numbers,
    )


def _only(version: _Version, numbers: Iterable[int]) -> _Version:
    """Keep some examples of a version."""
    wanted = np.array(sorted(numbers))
    rows, texts = np.isin(version.examples, wanted), np.isin(version.texts, wanted)

    def part(of: Predictions | None, mask: np.ndarray) -> Predictions | None:
        return (
            None if of is None else Predictions(of.scores[mask], of.labels[mask], of.groups[mask])
        )

    heads = part(version.heads, rows)
    assert heads is not None
    return _Version(
        heads=heads,
        shuffled=part(version.shuffled, rows),
        examples=np.array(version.examples)[rows].tolist(),
        baseline=part(version.baseline, texts),
        texts=np.array(version.texts)[texts].tolist(),
    )


def _metrics(version: _Version, seed: int) -> VersionMetrics:
    def accuracy(of: Predictions | None) -> Estimate | None:
        if of is None:
            return None
        return report(of.scores, of.labels, of.groups, seed=seed).balanced_accuracy

    return VersionMetrics(
        n=len(version.texts),
        **named("balanced_accuracy", accuracy(version.heads)),
        **named("tfidf_balanced_accuracy", accuracy(version.baseline)),
        **named("shuffled_balanced_accuracy", accuracy(version.shuffled)),
    )


def _shares(corpus: Corpus, held: Sequence[int]) -> dict[str, float]:
    """Give the share of texts of each label that hold a keyword."""
    texts = Counter(example.label for example in corpus.examples)
    with_one = Counter(e.label for e, n in zip(corpus.examples, held, strict=True) if n)
    return {
        label: round(with_one[place] / texts[place], 4)
        for place, label in enumerate(corpus.labels)
        if texts[place]
    }
