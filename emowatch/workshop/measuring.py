"""A bank with its floors and its model, ready to read test sets and to be measured on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emowatch.bank.files import FILE_NAME
from emowatch.bank.probe_bank import ProbeBank
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import LoadedModel
from emowatch.workshop.corpora import Corpus, undersample
from emowatch.workshop.evaluation import TestRows
from emowatch.workshop.extraction import extract
from emowatch.workshop.options import TrainOptions, options_of
from emowatch.workshop.outputs import (
    SHUFFLED_FOLDER,
    STATES_FOLDER,
    layers_at_once,
    recorded_training,
)
from emowatch.workshop.preparation import Prepared, Report, prepare, rows_of
from emowatch.workshop.text_baseline import TextBaseline, fit_text_baseline


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What stays the same for all test sets of one bank."""

    bank: ProbeBank
    loaded: LoadedModel
    shuffled: ProbeBank | None
    """A bank of the same kind, fitted to shuffled labels."""
    training: Corpus | None
    """The texts that the bank learned from."""
    baseline: TextBaseline | None
    """Fitted to these texts."""
    options: TrainOptions
    """How texts become states."""
    report: Report
    doubts: tuple[str, ...]
    """What a reader must know of any figure measured here."""

    @property
    def place(self) -> int:
        """Place of the primary layer among those of the bank."""
        return self.bank.card.layers.index(self.bank.card.primary)

    def classes(self, corpus: Corpus) -> list[int]:
        """Give the bank's class numbers of a corpus's labels."""
        return [self.bank.card.labels.index(label) for label in corpus.labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """A test set as it was read: classes of equal size."""

    __test__ = False  # not a test class, whatever its name tells pytest

    corpus: Corpus
    prepared: Prepared
    rows: TestRows


def open_bench(
    bank: ProbeBank,
    loaded: LoadedModel,
    *,
    folder: Path | None,
    training: Corpus | None,
    options: TrainOptions | None,
    report: Report,
) -> Bench:
    """Bring a bank, its model and its floors together.

    Args:
        bank: the bank.
        loaded: its model.
        folder: the bank's folder; where shuffled heads and the record of its training lie.
        training: texts the bank learned from; looked for by the record where `None`.
        options: how texts become states; as in training where `None`.
        report: told of progress.

    Raises:
        ProbeMismatchError: if the model has another shape than the bank's.
    """
    card = bank.card
    blocks = find_blocks(loaded.model, loaded.blocks)
    differing = bank.check_fits(loaded.model, blocks, loaded.tokenizer, model_name=loaded.name)
    doubts = []
    if card.target == "reply":
        doubts.append("Each text was read as a reply of the model, which is what this bank judges.")
        openings = card.training.get("openings", 1)
        if options is None and openings != 1:
            doubts.append(f"Here it follows one opening; in training there were {openings}.")
    if differing:
        doubts.append(f"Measured on a model with other {' and '.join(differing)} than in training.")
    training = training or recorded_training(folder, card)
    baseline = None
    if training is not None:
        examples = training.examples
        baseline = fit_text_baseline(
            [e.text for e in examples], [e.label for e in examples], len(card.labels)
        )
    null = folder / SHUFFLED_FOLDER / FILE_NAME if folder is not None else None
    return Bench(
        bank=bank,
        loaded=loaded,
        shuffled=ProbeBank.from_file(null) if null is not None and null.exists() else None,
        training=training,
        baseline=baseline,
        options=options or options_of(card),
        report=report,
        doubts=tuple(doubts),
    )


def read_test_set(
    bench: Bench,
    corpus: Corpus,
    layers: tuple[int, ...],
    work: Path,
    states: Path | None = None,
) -> TestSet:
    """Undersample a corpus to its smallest class and read the states of its texts.

    States and replies are kept in `work`, or states in a folder of their own, and what is there
    already is not made again.

    Raises:
        UsageError: if the states would not fit this machine's memory.
        TrainingError: if no text can be read.
    """
    options, card = bench.options, bench.bank.card
    chosen = undersample(np.array([e.label for e in corpus.examples]), seed=options.seed)
    corpus = replace(corpus, examples=tuple(corpus.examples[i] for i in sorted(chosen.tolist())))
    layers_at_once(options, len(corpus), len(layers), card.d_model, fewest=len(layers))
    prepared = prepare(corpus, bench.loaded, options, work, bench.report)
    folder = states or work / STATES_FOLDER
    rows = read_rows(bench, corpus, prepared, layers, folder, bench.report)
    return TestSet(corpus=corpus, prepared=prepared, rows=rows)


def read_rows(
    bench: Bench,
    corpus: Corpus,
    prepared: Prepared,
    layers: tuple[int, ...],
    folder: Path,
    report: Report,
) -> TestRows:
    """Read the states of passages into `folder`, with what is known of each."""
    loaded = bench.loaded
    activations = extract(
        loaded.model,
        find_blocks(loaded.model, loaded.blocks),
        prepared.passages,
        layers,
        folder,
        batch_tokens=bench.options.batch_tokens,
        progress=lambda done, total: report("reading states", done, total),
    )
    rows = rows_of(corpus, prepared, activations)
    group_of = corpus.group_numbers
    return TestRows(
        states=rows.states,
        labels=rows.labels,
        offsets=rows.offsets,
        examples=rows.examples.tolist(),
        groups=[group_of[number] for number in rows.examples.tolist()],
    )
