"""From a corpus and a model to a bank on disk, and from a bank to its figures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import emowatch
from emowatch.bank.card import BankCard, Evaluation, TrainingData
from emowatch.bank.files import FILE_NAME
from emowatch.bank.fingerprints import fingerprint
from emowatch.bank.probe_bank import ProbeBank
from emowatch.model.blocks import find_blocks, resolve_layers
from emowatch.model.loading import LoadedModel
from emowatch.workshop.calibrating import calibrate_trained, split_of_training
from emowatch.workshop.caveats import cautions, doubts
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.evaluation import evaluate, for_card
from emowatch.workshop.extraction import extract
from emowatch.workshop.fitting import Fitted
from emowatch.workshop.keyword_free import measure_keyword_free
from emowatch.workshop.keywords import Keywords
from emowatch.workshop.locking import alone
from emowatch.workshop.measuring import open_bench, read_test_set
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.outputs import (
    SHUFFLED_FOLDER,
    STATES_FOLDER,
    check_directions,
    check_output,
    check_size,
    check_target,
    checked_name,
    clear_work,
    layers_at_once,
    write_run,
)
from emowatch.workshop.parts import fit_in_parts
from emowatch.workshop.preparation import Report, prepare, quiet
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
    states: Path | None = None,
    reading: Mapping[str, Any] | None = None,
    report: Report = quiet,
) -> ProbeBank:
    """Train a bank on `corpus` and write it to the folder `out`.

    `reading` is how the corpus was read, noted for later evaluations.
    States and replies are kept in ``out/work`` until the bank is written, so that a run that
    was killed goes on from there; those in a folder that was named are kept for good.

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
    check_directions(options, layers, blocks.d_model)
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
            states or folder / STATES_FOLDER,
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
    states: Path | None = None,
    options: TrainOptions | None = None,
    keywords: Keywords | None = None,
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
        states: folder for states, where they are kept apart.
        options: how texts become states; as in training where `None`.
        keywords: what is masked to measure the bank without them; nothing where `None`.
        report: told of progress.
        note: kept with the figures.
    """
    bench = open_bench(
        bank, loaded, folder=folder, training=training, options=options, report=report
    )
    tested = read_test_set(bench, corpus, bank.card.layers, work, states)
    corpus, prepared = tested.corpus, tested.prepared
    notes = [*([note] if note else []), *bench.doubts]
    notes += doubts(corpus, prepared, bench.training, bank.card)
    examples = [corpus.examples[number] for number in prepared.examples]
    group_of = corpus.group_numbers
    unlike = {}
    if bank.card.can_abstain:
        unlike = unlike_rows(corpus, bank, loaded, bench.options, work, report)
    found = evaluate(
        bank,
        tested.rows,
        data=corpus.source,
        sha256=corpus.sha256,
        texts=(
            [example.text for example in examples],
            [example.label for example in examples],
            [group_of[number] for number in prepared.examples],
        ),
        baseline=bench.baseline,
        shuffled=bench.shuffled,
        seed=bench.options.seed,
        note=" ".join(notes),
        unlike=unlike,
    )
    if not keywords:
        return found
    return replace(found, keyword_free=measure_keyword_free(bench, tested, keywords, work))


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
    if options.directions is not None:
        named = options.directions
        record["directions"] = ", ".join(named.labels)
        record["directions_method"] = named.method
        record["directions_model"] = named.model
        record["directions_sha256"] = hashlib.sha256(named.directions.tobytes()).hexdigest()
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
        if options.thinks is not None:
            record["thinks"] = int(options.thinks)
    return record


def save_evaluation(bank: ProbeBank, evaluation: Evaluation, folder: Path) -> ProbeBank:
    """Write the bank anew with `evaluation` on its card, as far as a card has room."""
    measured = ProbeBank(replace(bank.card, evaluation=for_card(evaluation)), bank.tensors)
    measured.save(folder)
    return measured
