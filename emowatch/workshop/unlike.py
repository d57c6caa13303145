"""Texts that no bank of emotions was made for: code, tool calls, other languages.

A small fixed set, written for this project, to measure abstention with.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from emowatch.bank.probe_bank import ProbeBank
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import LoadedModel
from emowatch.workshop.corpora import Corpus, Example
from emowatch.workshop.evaluation import TestRows
from emowatch.workshop.extraction import extract
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.outputs import STATES_FOLDER
from emowatch.workshop.preparation import Report, prepare, quiet, rows_of

PATH = Path(__file__).with_name("unlike.toml")
UNLIKE_FOLDER = "unlike"


def unlike_texts() -> Mapping[str, tuple[str, ...]]:
    """Read the texts by kind: ``code``, ``tool calls``, ``other languages``."""
    table = tomllib.loads(PATH.read_text(encoding="utf-8"))
    return {kind.replace("_", " "): tuple(text.strip() for text in table[kind]) for kind in table}


def unlike_corpora(like: Corpus) -> dict[str, Corpus]:
    """Make a corpus of each kind in the shape of another; labels mean nothing."""
    return {
        kind: replace(
            like,
            examples=tuple(
                Example(text=text, label=0, group=text, row=row)
                for row, text in enumerate(texts, 1)
            ),
            quarantined=(),
        )
        for kind, texts in unlike_texts().items()
    }


def unlike_rows(
    like: Corpus,
    bank: ProbeBank,
    loaded: LoadedModel,
    options: TrainOptions,
    work: Path,
    report: Report,
) -> dict[str, TestRows]:
    """Read the states of these texts at the bank's layers, by kind.

    Args:
        like: the test set, whose labels the corpus of these texts takes; they mean nothing.
        bank: whose layers are read.
        loaded: the bank's model.
        options: how texts become states.
        work: folder for states and replies.
        report: told of progress.
    """
    found: dict[str, TestRows] = {}
    corpora = unlike_corpora(like)
    for kind, corpus in corpora.items():
        folder = work / UNLIKE_FOLDER / kind.replace(" ", "-")
        prepared = prepare(corpus, loaded, options, folder, quiet)
        activations = extract(
            loaded.model,
            find_blocks(loaded.model, loaded.blocks),
            prepared.passages,
            bank.card.layers,
            folder / STATES_FOLDER,
            batch_tokens=options.batch_tokens,
        )
        rows = rows_of(corpus, prepared, activations)
        numbers = rows.examples.tolist()
        found[kind] = TestRows(
            states=rows.states,
            labels=rows.labels,
            offsets=rows.offsets,
            examples=numbers,
            groups=numbers,
        )
        report("reading unlike texts", len(found), len(corpora))
    return found
