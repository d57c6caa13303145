"""From a corpus and a model to a bank on disk, and from a bank to its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import emowatch
from emowatch.bank.card import BankCard, Evaluation, TrainingData
from emowatch.bank.files import FILE_NAME
from emowatch.bank.fingerprints import fingerprint
from emowatch.bank.probe_bank import ProbeBank
from emowatch.model.blocks import find_blocks, resolve_layers
from emowatch.model.loading import LoadedModel
from emowatch.workshop.calibrating import calibrate_trained, numbered, split_of_training
from emowatch.workshop.caveats import cautions, doubts
from emowatch.workshop.corpora import Corpus, undersample
from emowatch.workshop.evaluation import TestRows, evaluate, for_card
from emowatch.workshop.extraction import extract
from emowatch.workshop.fitting import Fitted
from emowatch.workshop.locking import alone
from emowatch.workshop.options import TrainOptions, options_of
from emowatch.workshop.outputs import (
    SHUFFLED_FOLDER,
    STATES_FOLDER,
    check_output,
    check_size,
    check_target,
    checked_name,
    clear_work,
    layers_at_once,
    recorded_training,
    write_run,
)
from emowatch.workshop.parts import fit_in_parts
from emowatch.workshop.preparation import Prepared, Report, prepare, quiet, rows_of
from emowatch.workshop.presets import preset
from emowatch.workshop.unlike import unlike_rows


def train_bank(
    corpus: Corpus,
    loaded: LoadedModel,
    out: Path,
    options: TrainOptions,
    *,
    name: str | None = None,
    work: Path | None = None,
    reading: Mapping[str, Any] | None = None,
    report: Report = quiet,
) -> ProbeBank:
    """Train a bank on `corpus` and write it to the folder `out`.

    `reading` is how the corpus was read, noted for later evaluations.
    States and replies are kept in ``out/work`` until the bank is written, so that a run that
    was killed goes on from there.

    Raises:
        RetryableError: if another run is writing to `out` or to the work folder.
        EmowatchError: of the kind that fits; nothing but the work folder is left behind.
    """
    check_target(options)
    check_output(out)
    bank_name = checked_name(name or out.resolve().name)
    model, tokenizer = loaded.model, loaded.tokenizer
    blocks = find_blocks(model, loaded.blocks)
    layers = resolve_layers(options.layers, blocks.n_layers)
    check_size(options, len(layers), blocks.d_model, len(corpus.labels))
    at_once = layers_at_once(options, len(corpus), len(layers), blocks.d_model)
    options = replace(options, template=options.template and bool(tokenizer.chat_template))
    folder = work or out / "work"
    with alone(out):
        prepared = prepare(corpus, loaded, options, folder, report)
        activations = extract(
            model,
            blocks,
            prepared.passages,
            layers,
            folder / STATES_FOLDER,
            batch_tokens=options.batch_tokens,
            progress=lambda done, total: report("reading states", done, total),
        )
        splits, parted = split_of_training(corpus, options)
        data = TrainingData(
            source=corpus.source,
            sha256=corpus.sha256,
            licence=options.licence or corpus.licence or "",
            examples=len(prepared.passages),
            quarantined=dict(corpus.quarantine_counts()) | dict(prepared.left_out),
            split=parted,
            per_class=corpus.counts(),
        )
        fitted, shuffled = fit_in_parts(
            corpus, prepared, activations, splits, options, at_once, report
        )
        card = BankCard(
            name=bank_name,
            model=loaded.name,
            revision=str(getattr(model.config, "_commit_hash", None) or ""),
            d_model=blocks.d_model,
            n_layers=blocks.n_layers,
            fingerprints=fingerprint(model, blocks, tokenizer),
            layers=layers,
            primary=layers[fitted.primary],
            labels=corpus.labels,
            target=options.target,
            head=options.head,
            readout=options.readout,
            template=options.template,
            offsets=(int(activations.offset.min()), int(activations.offset.max())),
            bins=fitted.bins,
            data=data,
            training=_training_record(options, fitted),
            licence="apache-2.0",
            notes=(*options.notes, *cautions(prepared)),
            versions={"emowatch": emowatch.__version__}
            | {package: version(package) for package in ("torch", "transformers")},
        )
        if shuffled is not None:
            its_card = replace(card, name=f"{bank_name}-shuffled", bins=shuffled.bins)
            ProbeBank(its_card, shuffled.tensors).save(out / SHUFFLED_FOLDER)
        else:  # those of an earlier bank would be measured beside this one
            (out / SHUFFLED_FOLDER / FILE_NAME).unlink(missing_ok=True)
        write_run(out, corpus, reading or {})
        bank = calibrate_trained(
            ProbeBank(card, fitted.tensors), corpus, prepared, activations, splits, fitted.position
        )
        bank.save(out)  # last, so that where a bank is the rest is
        if work is None:
            clear_work(folder)
    return bank


def evaluate_bank(
    bank: ProbeBank,
    corpus: Corpus,
    loaded: LoadedModel,
    *,
    folder: Path | None = None,
    training: Corpus | None = None,
    work: Path,
    options: TrainOptions | None = None,
    report: Report = quiet,
    note: str = "",
) -> Evaluation:
    """Measure `bank` on `corpus`, undersampled to its smallest class.

    Args:
        bank: the bank.
        corpus: labelled texts it has not seen, with the bank's labels.
        loaded: the bank's model.
        folder: the bank's folder; where shuffled heads and the record of its training lie.
        training: texts the bank learned from, for the text baseline; looked for by the record.
        work: folder for states and replies.
        options: how texts become states; as in training where `None`.
        report: told of progress.
        note: kept with the figures.
    """
    card = bank.card
    blocks = find_blocks(loaded.model, loaded.blocks)
    differing = bank.check_fits(loaded.model, blocks, loaded.tokenizer, model_name=loaded.name)
    notes = [note] if note else []
    if card.target == "reply":
        notes.append("Each text was read as a reply of the model, which is what this bank judges.")
        openings = card.training.get("openings", 1)
        if options is None and openings != 1:
            notes.append(f"Here it follows one opening; in training there were {openings}.")
    if differing:
        notes.append(f"Measured on a model with other {' and '.join(differing)} than in training.")
    training = training or recorded_training(folder, card)
    settings = options or options_of(card)
    chosen = undersample(np.array([e.label for e in corpus.examples]), seed=settings.seed)
    corpus = replace(corpus, examples=tuple(corpus.examples[i] for i in sorted(chosen.tolist())))
    n_layers = len(card.layers)
    layers_at_once(settings, len(corpus), n_layers, card.d_model, fewest=n_layers)
    prepared = prepare(corpus, loaded, settings, work, report)
    notes += doubts(corpus, prepared, training, card)
    activations = extract(
        loaded.model,
        blocks,
        prepared.passages,
        card.layers,
        work / STATES_FOLDER,
        batch_tokens=settings.batch_tokens,
        progress=lambda done, total: report("reading states", done, total),
    )
    rows = rows_of(corpus, prepared, activations)
    group_of = numbered([example.group for example in corpus.examples])
    null = folder / SHUFFLED_FOLDER / FILE_NAME if folder is not None else None
    unlike = {}
    if bank.card.can_abstain:
        unlike = unlike_rows(corpus, bank, loaded, settings, work, report)
    return evaluate(
        bank,
        TestRows(
            states=rows.states,
            labels=rows.labels,
            offsets=rows.offsets,
            examples=rows.examples.tolist(),
            groups=[group_of[number] for number in rows.examples.tolist()],
        ),
        data=corpus.source,
        sha256=corpus.sha256,
        texts=(*_texts(corpus, prepared), [group_of[n] for n in prepared.examples]),
        training_texts=None if training is None else _texts(training),
        shuffled=ProbeBank.from_file(null) if null is not None and null.exists() else None,
        seed=settings.seed,
        note=" ".join(notes),
        unlike=unlike,
    )


def _texts(corpus: Corpus, prepared: Prepared | None = None) -> tuple[list[str], list[int]]:
    """Texts and classes of a corpus, or of those of its examples that became passages."""
    examples = corpus.examples
    if prepared is not None:
        examples = tuple(examples[number] for number in prepared.examples)
    return [e.text for e in examples], [e.label for e in examples]


def _training_record(options: TrainOptions, fitted: Fitted) -> dict[str, str | int | float]:
    fit = preset(options.preset, **({"hidden": options.hidden} if options.hidden else {}))
    record: dict[str, str | int | float] = {
        "preset": options.preset,
        "balancing": options.balancing,
        "seed": options.seed,
        "validation_balanced_accuracy": max(fitted.validation),
    }
    if fitted.l2:
        record |= {"optimiser": "preconditioned conjugate gradients"}
        record |= {"l2_of_primary_layer": round(fitted.l2[fitted.primary], 6)}
    else:
        record |= {
            "optimiser": "AdamW",
            "learning_rate": fit.learning_rate,
            "weight_decay": fit.weight_decay,
            "warmup": fit.warmup,
            "cosine": int(fit.cosine),
            "batch": fit.batch,
            "patience": fit.patience,
            "epochs": fitted.epochs,
        }
    if options.head != "linear":
        record |= {"hidden": fit.hidden, "dropout": fit.dropout}
    if options.readout == "positions":
        record["position"] = options.positions[fitted.position]
    if options.readout == "reply":
        record["max_new_tokens"] = options.max_new_tokens
        record["states_per_reply"] = options.states_per_reply
        if options.target == "reply":
            record["openings"] = len(options.openings)
        record["sample"] = int(options.sample)
    return record


def save_evaluation(bank: ProbeBank, evaluation: Evaluation, folder: Path) -> ProbeBank:
    """Write the bank anew with `evaluation` on its card, as far as a card has room."""
    measured = ProbeBank(replace(bank.card, evaluation=for_card(evaluation)), bank.tensors)
    measured.save(folder)
    return measured
