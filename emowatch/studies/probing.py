"""Banks that studies train and measure; what a run has made already is opened, not made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from emowatch.bank.card import Evaluation
from emowatch.bank.files import FILE_NAME
from emowatch.bank.probe_bank import ProbeBank
from emowatch.model.blocks import find_blocks, resolve_layers
from emowatch.studies.setting import Setting
from emowatch.workshop.activations import Activations
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.extraction import extract, model_key
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.outputs import STATES_FOLDER
from emowatch.workshop.pipeline import evaluate_bank, train_bank
from emowatch.workshop.preparation import Prepared, prepare

OF_STATES = (
    "layers",
    "readout",
    "target",
    "template",
    "positions",
    "max_new_tokens",
    "openings",
    "states_per_reply",
    "sample",
    "batch_tokens",
    "seed",
)
"""The options on which the states of a text depend."""


def options_for(setting: Setting, **changes: Any) -> TrainOptions:
    """Give the options of a bank of this run; by default of heads on the last prompt token.

    Layer 0 is always read: what holds there is known beforehand.
    """
    options = TrainOptions(
        layers=setting.layers if setting.layers == "all" else f"0,{setting.layers}",
        head=setting.head,
        template=setting.template,
        seed=setting.seed,
        batch_tokens=setting.batch_tokens,
    )
    return replace(options, **changes)


def read(
    setting: Setting, corpus: Corpus, options: TrainOptions
) -> tuple[Prepared, Activations, tuple[int, ...]]:
    """Read the states of a corpus, or open them where they were read before.

    Returns:
        The passages, their states and the layers these are of.
    """
    loaded = setting.loaded
    blocks = find_blocks(loaded.model, loaded.blocks)
    layers = resolve_layers(options.layers, blocks.n_layers)
    folder = _states_folder(setting, corpus, options)
    prepared = prepare(corpus, loaded, options, folder, setting.report)
    activations = extract(
        loaded.model,
        blocks,
        prepared.passages,
        layers,
        folder / STATES_FOLDER,
        batch_tokens=options.batch_tokens,
        progress=lambda done, total: setting.report("reading states", done, total),
    )
    return prepared, activations, layers


def train(
    setting: Setting, name: str, options: TrainOptions, corpus: Corpus | None = None
) -> ProbeBank:
    """Train a bank on the setting's texts, or on others, or open the one that was trained."""
    texts = setting.train if corpus is None else corpus
    labels = [example.label for example in texts.examples]
    key = _key(setting, texts, asdict(options), labels)
    folder = setting.work / "banks" / f"{name}-{key}"
    if (folder / FILE_NAME).exists():
        return ProbeBank.from_file(folder)
    return train_bank(
        texts,
        setting.loaded,
        folder,
        options,
        name=name,
        work=_states_folder(setting, texts, options),
        reading=setting.reading if corpus is None else {},
        report=setting.report,
    )


def measure(
    setting: Setting,
    bank: ProbeBank,
    options: TrainOptions,
    test: Corpus | None = None,
    training: Corpus | None = None,
) -> Evaluation:
    """Measure a bank that `train` gave on the setting's test texts, or on others."""
    texts = setting.test if test is None else test
    learned = setting.train if training is None else training
    labels = [example.label for example in learned.examples]
    key = _key(setting, learned, asdict(options), labels)
    return evaluate_bank(
        bank,
        texts,
        setting.loaded,
        folder=setting.work / "banks" / f"{bank.card.name}-{key}",
        training=learned,
        work=_states_folder(setting, texts, options),
        options=options,
        report=setting.report,
    )


def relabelled(corpus: Corpus, labels: Sequence[int | None], source: str) -> Corpus:
    """Give the examples other labels; those without one are left out."""
    examples = tuple(
        replace(example, label=label)
        for example, label in zip(corpus.examples, labels, strict=True)
        if label is not None
    )
    return replace(corpus, examples=examples, source=f"{corpus.source}: {source}")


def _states_folder(setting: Setting, corpus: Corpus, options: TrainOptions) -> Path:
    """Name a folder after all that states depend on, so that other work never meets them."""
    given = asdict(options)
    key = _key(setting, corpus, {name: given[name] for name in OF_STATES})
    return setting.work / "states" / f"{options.readout}-{key}"


def _key(setting: Setting, corpus: Corpus, *more: Any) -> str:
    rows = [example.row for example in corpus.examples]
    parts = [corpus.sha256, rows, model_key(setting.loaded.model), *more]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
