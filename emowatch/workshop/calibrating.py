"""From a bank and texts that it has not seen to the same bank with label sets and abstention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import TrainingError, UsageError
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import LoadedModel
from emowatch.text import clean_line
from emowatch.workshop.activations import Activations
from emowatch.workshop.calibration import fit_temperatures
from emowatch.workshop.corpora import Corpus, Example, split_by_group
from emowatch.workshop.extraction import extract
from emowatch.workshop.options import TrainOptions, options_of
from emowatch.workshop.outputs import STATES_FOLDER, recorded_training
from emowatch.workshop.preparation import Prepared, Report, Rows, prepare, quiet, rows_of
from emowatch.workshop.uncertainty import (
    KEEPS,
    LEVEL,
    MIN_GROUPS,
    HeldOut,
    are_enough,
    calibrate,
    check_labels,
    groups_of_labels,
)

REFERENCE = 0.3
"""Share of groups that the states' mean and spread come from; thresholds come from the others."""


def calibrate_bank(
    bank: ProbeBank,
    corpus: Corpus,
    loaded: LoadedModel,
    *,
    folder: Path | None = None,
    training: Corpus | None = None,
    work: Path,
    options: TrainOptions | None = None,
    report: Report = quiet,
    level: float = LEVEL,
    keeps: float | None = KEEPS,
    temperatures: bool = False,
) -> ProbeBank:
    """Give `bank` label sets and abstention, calibrated on `corpus`; its heads stay as they are.

    Args:
        bank: the bank.
        corpus: labelled texts it has not seen, with the bank's labels.
        loaded: the bank's model.
        folder: the bank's folder; where the record of its training lies.
        training: texts the bank learned from, which are left out; looked for by the record.
        work: folder for states and replies.
        options: how texts become states; as in training where `None`.
        report: told of progress.
        level: share of texts whose true label the sets are to hold.
        keeps: share of states like those of `corpus` from which the bank is not to abstain; `None`
            for a bank that never does.
        temperatures: whether those are fitted anew too, at every layer and offset bin. Scores are
            others then, and what was measured of them is dropped.

    Raises:
        UsageError: for the texts that the bank was trained on.
        TrainingError: for too few groups of texts.
        ProbeMismatchError: for another model than the bank's.
    """
    card = bank.card
    if corpus.sha256 == card.data.sha256:
        raise UsageError(
            f"Could not calibrate {clean_line(card.name)!r} on {clean_line(corpus.source)!r}: it "
            "is the file the bank was trained on, and sets would promise too much. Name texts that "
            "it has not seen."
        )
    blocks = find_blocks(loaded.model, loaded.blocks)
    bank.check_fits(loaded.model, blocks, loaded.tokenizer, model_name=loaded.name)
    training = training or recorded_training(folder, card)
    known = training is not None
    corpus, shared = _unseen(corpus, training)
    spread = REFERENCE if temperatures or keeps is not None else 0.0
    groups = corpus.group_numbers
    _check_groups(len(set(groups)), spread)
    settings = options or options_of(card)
    split, sides = "all for thresholds", {"thresholds": np.arange(len(corpus))}
    if spread:
        shares = {"reference": spread, "thresholds": 1 - spread}
        names = [example.group for example in corpus.examples]
        sides = split_by_group(names, fractions=shares, seed=settings.seed)
        of_spread = ["temperatures"] * temperatures + ["the spread of states"] * (keeps is not None)
        split = (
            f"by group: {spread:.0%} for {' and '.join(of_spread)}, {1 - spread:.0%} for "
            f"thresholds (seed {settings.seed})"
        )
    chosen = sides["thresholds"]
    given = np.array([example.label for example in corpus.examples])[chosen]
    check_labels(groups_of_labels(np.array(groups)[chosen], given, card.labels), 1 - spread)
    prepared = prepare(corpus, loaded, settings, work, report)
    activations = extract(
        loaded.model,
        blocks,
        prepared.passages,
        card.layers if temperatures else (card.primary,),
        work / STATES_FOLDER,
        batch_tokens=settings.batch_tokens,
        progress=lambda done, total: report("reading states", done, total),
    )
    rows = rows_of(corpus, prepared, activations)
    place = card.layers.index(card.primary) if temperatures else 0
    if temperatures:
        bank = with_temperatures(bank, rows, sides["reference"].tolist())
    reference = None
    if keeps is not None:
        reference = held_out(rows, groups, sides["reference"].tolist(), place)
    if not known:
        split += "; whether texts were in the training data could not be checked"
    if shared:
        split += f"; {shared} left out, as in the training data"
    return calibrate(
        bank,
        held_out(rows, groups, chosen.tolist(), place),
        reference,
        source=corpus.source,
        sha256=corpus.sha256,
        split=split,
        level=level,
        keeps=KEEPS if keeps is None else keeps,
    )


def split_of_training(
    corpus: Corpus, options: TrainOptions
) -> tuple[dict[str, NDArray[np.int64]], str]:
    """Part a corpus by group for training; return the sides, and in words how it was parted.

    The side ``calibration`` is left out where it would have fewer groups than it needs, in all or
    of some label: training has more use for them.
    """
    splits, parted = _parted(corpus, options, options.calibration)
    if "calibration" in splits and not _are_enough(corpus, splits["calibration"]):
        return _parted(corpus, options, 0.0)
    return splits, parted


def _parted(
    corpus: Corpus, options: TrainOptions, calibration: float
) -> tuple[dict[str, NDArray[np.int64]], str]:
    groups = [example.group for example in corpus.examples]
    shares = {"validation": options.validation, "calibration": calibration}
    if calibration * len(set(groups)) < MIN_GROUPS:
        del shares["calibration"]
    shares = {"train": 1 - sum(shares.values())} | shares
    words = {"train": "training"}
    parted = ", ".join(f"{share:.0%} {words.get(side, side)}" for side, share in shares.items())
    splits = split_by_group(groups, fractions=shares, seed=options.seed)
    return splits, f"by group: {parted} (seed {options.seed})"


def _are_enough(corpus: Corpus, side: NDArray[np.int64]) -> bool:
    groups, chosen = corpus.group_numbers, side.tolist()
    labels = [corpus.examples[number].label for number in chosen]
    return are_enough([groups[number] for number in chosen], labels, len(corpus.labels))


def calibrate_trained(
    bank: ProbeBank,
    corpus: Corpus,
    prepared: Prepared,
    activations: Activations,
    splits: Mapping[str, NDArray[np.int64]],
    position: int,
) -> ProbeBank:
    """Calibrate a bank that was just trained on the side ``calibration`` of its corpus.

    The bank as it is where there is no such side, or too few of its texts made states.

    Args:
        bank: the bank.
        corpus: what it was trained on.
        prepared: passages of the corpus.
        activations: their states.
        splits: the sides of the corpus.
        position: place of the token position that its heads read.
    """
    if "calibration" not in splits:
        return bank
    rows = rows_of(corpus, prepared, activations, (bank.card.primary,))
    groups = corpus.group_numbers
    held = held_out(rows, groups, splits["calibration"].tolist(), position)
    if not are_enough(held.groups, held.labels.tolist(), len(bank.card.labels)):
        return bank
    return calibrate(
        bank,
        held,
        held_out(rows, groups, splits["train"].tolist(), position),
        source=corpus.source,
        sha256=corpus.sha256,
        split="the side for calibration for thresholds, that for training for the spread of states",
    )


def _check_groups(count: int, spread: float) -> None:
    """Refuse too few groups of texts before any state is read.

    Raises:
        TrainingError: saying how many are needed.
    """
    needed = math.ceil(MIN_GROUPS / (1 - spread))
    if count < needed:
        raise TrainingError(
            f"Could not calibrate on {count} groups of texts: {needed} are needed at least, "
            f"{1 - spread:.0%} of them for thresholds. Give more texts."
        )


def with_temperatures(bank: ProbeBank, rows: Rows, examples: Sequence[int]) -> ProbeBank:
    """Fit a bank's temperatures anew.

    Args:
        bank: the bank.
        rows: states at all of its layers.
        examples: those whose rows to fit to.
    """
    chosen = _rows_of(rows, examples)
    offsets = rows.offsets[chosen]
    found = fit_temperatures(
        bank.heads.head_logits(rows.states[:, chosen], offsets),
        rows.labels[chosen],
        offsets,
        bank.card.bins,
    )
    card = replace(bank.card, evaluation=None)
    return ProbeBank(card, bank.tensors | {"temperature": found})


def _rows_of(rows: Rows, examples: Sequence[int]) -> Tensor:
    present = [rows.by_example[number] for number in examples if number in rows.by_example]
    return torch.cat([torch.empty(0, dtype=torch.long), *present])


def held_out(rows: Rows, groups: Sequence[int], examples: Sequence[int], place: int = 0) -> HeldOut:
    """Choose the rows of some examples, with their states at one place of the stack.

    Args:
        rows: states with what is known of each.
        groups: number of the group of each example of the corpus.
        examples: whose rows to choose.
        place: of the primary layer.
    """
    chosen = _rows_of(rows, examples)
    return HeldOut(
        states=rows.states[place, chosen],
        labels=rows.labels[chosen],
        offsets=rows.offsets[chosen],
        groups=[groups[number] for number in rows.examples[chosen].tolist()],
    )


def _unseen(corpus: Corpus, training: Corpus | None) -> tuple[Corpus, int]:
    """Leave out the texts that are in the training data, and count them."""
    seen = set() if training is None else {example.group for example in training.examples}
    kept: tuple[Example, ...] = tuple(e for e in corpus.examples if e.group not in seen)
    return replace(corpus, examples=kept), len(corpus) - len(kept)
