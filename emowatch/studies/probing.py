"""Banks that studies train and measure; what a run has made already is opened, not made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from emowatch.bank.card import Evaluation
from emowatch.bank.files import FILE_NAME
from emowatch.bank.heads import Heads
from emowatch.bank.probe_bank import ProbeBank
from emowatch.model.blocks import find_blocks, resolve_layers
from emowatch.studies.law import RAW, Law, check_last_token
from emowatch.studies.setting import Setting
from emowatch.workshop.activations import Activations
from emowatch.workshop.calibrating import split_of_training
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.extraction import extract, model_key
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.outputs import layers_at_once
from emowatch.workshop.parts import fit_in_parts
from emowatch.workshop.pipeline import evaluate_bank, train_bank
from emowatch.workshop.preparation import Prepared, prepare, quiet

OF_REPLIES = (
    "readout",
    "target",
    "template",
    "max_new_tokens",
    "openings",
    "sample",
    "thinks",
    "seed",
)
"""The options on which the model's replies depend."""
OF_STATES = (*OF_REPLIES, "layers", "positions", "states_per_reply", "batch_tokens")
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
        calibration=0.0,  # studies ask no sets of their banks, and paper A holds out a tenth
        shuffled=False,  # see `fit_shuffled`
    )
    return replace(options, **changes)


def answered(setting: Setting, corpus: Corpus, options: TrainOptions) -> Prepared:
    """Turn a corpus into passages; where the read-out wants replies, the model writes them once."""
    folder = _work_folder(setting, corpus, options)
    return prepare(corpus, setting.loaded, options, folder, setting.report)


def read(
    setting: Setting, corpus: Corpus, options: TrainOptions
) -> tuple[Prepared, Activations, tuple[int, ...]]:
    """Read the states of a corpus, or open them where they were read before.

    Returns:
        The passages, their states and the layers these are of.
    """
    loaded = setting.loaded
    layers = resolve_layers(options.layers, find_blocks(loaded.model, loaded.blocks).n_layers)
    prepared = answered(setting, corpus, options)
    folder = _states_folder(setting, corpus, options)
    return prepared, read_passages(setting, prepared, layers, folder), layers


def check_law(setting: Setting, options: TrainOptions) -> Law:
    """Hold the training prompts to the law of layer 0, before heads are fitted.

    Raises:
        LawError: if it does not hold.
    """
    if not options.template:
        return RAW
    prepared, activations, _ = read(setting, setting.train, options)
    return check_last_token(prepared, activations)


def read_passages(
    setting: Setting, prepared: Prepared, layers: Sequence[int], folder: Path
) -> Activations:
    """Read the states of passages into a folder, or open them there."""
    loaded = setting.loaded
    return extract(
        loaded.model,
        find_blocks(loaded.model, loaded.blocks),
        prepared.passages,
        layers,
        folder,
        batch_tokens=setting.batch_tokens,
        progress=lambda done, total: setting.report("reading states", done, total),
    )


def train(
    setting: Setting, name: str, options: TrainOptions, corpus: Corpus | None = None
) -> ProbeBank:
    """Train a bank on the setting's texts, or on others, or open the one that was trained."""
    texts = setting.train if corpus is None else corpus
    folder = _bank_folder(setting, name, options, texts)
    if (folder / FILE_NAME).exists():
        return ProbeBank.from_file(folder)
    return train_bank(
        texts,
        setting.loaded,
        folder,
        options,
        name=name,
        work=_work_folder(setting, texts, options),
        states=_states_folder(setting, texts, options),
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
    return evaluate_bank(
        bank,
        texts,
        setting.loaded,
        folder=_bank_folder(setting, bank.card.name, options, learned),
        training=learned,
        work=_work_folder(setting, texts, options),
        states=_states_folder(setting, texts, options),
        options=options,
        report=setting.report,
    )


def fit_alone(
    setting: Setting,
    corpus: Corpus,
    prepared: Prepared,
    activations: Activations,
    options: TrainOptions,
) -> tuple[Heads, int]:
    """Fit heads as `train` does, without a bank around them; give them, and the place of the layer
    that validation likes best."""
    splits, _ = split_of_training(corpus, options)
    d_model, layers = activations.d_model, activations.layers
    at_once = layers_at_once(options, len(corpus), len(layers), d_model)
    plain = replace(options, shuffled=False)
    fitted, _ = fit_in_parts(corpus, prepared, activations, splits, plain, at_once, setting.report)
    own = {n: t for n, t in fitted.tensors.items() if n not in ("temperature", "direction")}
    last = int(activations.offset.max())
    heads = Heads(options.head, own, fitted.tensors["temperature"], fitted.bins, last)
    return heads, fitted.primary


def fit_shuffled(
    setting: Setting, options: TrainOptions, count: int, layers: Sequence[int] | None = None
) -> Iterator[Heads]:
    """Fit heads to the training labels in another order, `count` times anew.

    One order says little: with few texts of a label, heads that learned nothing can be far from
    chance on the texts at hand, on either side.
    """
    prepared, activations, _ = read(setting, setting.train, options)
    if layers is not None:
        activations = activations.only(layers)
    labels = np.array([example.label for example in setting.train.examples])
    setting.report("fitting shuffled labels", 0, count)
    for number in range(count):
        order = np.random.default_rng([setting.seed, number]).permutation(len(labels))
        shuffled = relabelled(setting.train, labels[order].tolist(), "labels shuffled")
        silent = replace(setting, report=quiet)
        yield fit_alone(silent, shuffled, prepared, activations, options)[0]
        setting.report("fitting shuffled labels", number + 1, count)


def relabelled(corpus: Corpus, labels: Sequence[int | None], source: str) -> Corpus:
    """Give the examples other labels; those without one are left out."""
    examples = tuple(
        replace(example, label=label)
        for example, label in zip(corpus.examples, labels, strict=True)
        if label is not None
    )
    return replace(corpus, examples=examples, source=f"{corpus.source}: {source}")


def _bank_folder(setting: Setting, name: str, options: TrainOptions, learned: Corpus) -> Path:
    labels = [example.label for example in learned.examples]
    return setting.work / "banks" / f"{name}-{_key(setting, learned, asdict(options), labels)}"


def _work_folder(setting: Setting, corpus: Corpus, options: TrainOptions) -> Path:
    """Name a folder after all that the replies depend on: other work never meets them."""
    return setting.work / "replies" / _of(setting, corpus, options, OF_REPLIES)


def _states_folder(setting: Setting, corpus: Corpus, options: TrainOptions) -> Path:
    return setting.work / "states" / _of(setting, corpus, options, OF_STATES)


def _of(setting: Setting, corpus: Corpus, options: TrainOptions, names: Sequence[str]) -> str:
    given = asdict(options)
    return _key(setting, corpus, {name: given[name] for name in names})


def _key(setting: Setting, corpus: Corpus, *more: Any) -> str:
    rows = [(example.row, example.text, example.group) for example in corpus.examples]
    parts = [corpus.sha256, rows, model_key(setting.loaded.model), *more]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
