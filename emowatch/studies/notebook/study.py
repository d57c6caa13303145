"""The notebook study, from a file to findings. (Course notebook after Tak et al. 2025.)"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from emowatch.errors import StudyError
from emowatch.model.blocks import find_blocks, resolve_layers
from emowatch.model.loading import LoadedModel
from emowatch.studies.findings import Cell, Figure, Findings, Table
from emowatch.studies.law import Law
from emowatch.studies.notebook.accounts import Accounts
from emowatch.studies.notebook.curves import Curve, appraisal_tables, emotion_curve
from emowatch.studies.notebook.drawing import curve_figures, effect_figure
from emowatch.studies.notebook.probes import (
    Legible,
    Split,
    check_tells_nothing,
    read_probes,
    split,
)
from emowatch.studies.notebook.pushing import Pushed, Pushing, push
from emowatch.studies.notebook.sites import Parts, find_parts
from emowatch.studies.notebook.states import Questions, ask, check_layer_0, read_layers
from emowatch.studies.published import NOTEBOOK, published_for
from emowatch.text import clean_line
from emowatch.workshop.options import BATCH_TOKENS
from emowatch.workshop.preparation import Report, quiet

TAK = "Tak et al. 2025, arXiv 2502.05489"
SEED = 42
"""The notebook's."""
Part = Literal["probes", "appraisals", "interventions"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookOptions:
    """What is done, and where work is kept."""

    work: Path
    """States and answers are kept here; what is there already is not made again."""
    parts: Collection[Part] = PARTS
    layers: str = "all"
    """Of probes and appraisals; interventions need all."""
    texts: int = 200
    """Whose answers are pushed, at most."""
    pairs: int = 200
    """Of texts that are patched from each other, at most."""
    seed: int = SEED
    batch_tokens: int = BATCH_TOKENS
    report: Report = quiet


def study_notebook(accounts: Accounts, loaded: LoadedModel, options: NotebookOptions) -> Findings:
    """Probe five positions at each layer, read appraisals, and push the last token.

    Args:
        accounts: crowd-enVENT.
        loaded: the model.
        options: see there.

    Raises:
        UsageError: for a layer that the model does not have.
        StudyError: if no prompt fits the model, an emotion is missing among the texts to learn
            from, layer 0 tells what it cannot know, or a model has one block or too few texts are
            told right for interventions.
    """
    blocks = find_blocks(loaded.model, loaded.blocks)
    pushed = "interventions" in options.parts
    if pushed and blocks.n_layers < 2:
        raise StudyError(
            f"Could not push answers of {loaded.name!r}: it has one block, and layer 0 is "
            "all that could be pushed: the same in every text. Leave interventions out with "
            "--parts probes,appraisals."
        )
    layers = resolve_layers("all" if pushed else options.layers, blocks.n_layers)
    questions = ask(accounts, loaded)
    sides = split(questions.accounts, options.seed)
    activations = read_layers(
        questions,
        loaded,
        blocks,
        layers,
        options.work,
        batch_tokens=options.batch_tokens,
        report=options.report,
    )
    law = check_layer_0(questions, activations)
    legible = read_probes(
        questions.accounts, activations, sides, seed=options.seed, report=options.report
    )
    if law.holds:
        check_tells_nothing(legible, questions.accounts.emotions[sides.test])
    parts = find_parts(blocks)
    moved = None
    if pushed:
        settings = Pushing(
            texts=options.texts,
            pairs=options.pairs,
            seed=options.seed,
            batch_tokens=options.batch_tokens,
            work=options.work,
            report=options.report,
        )
        moved = push(loaded, parts, questions, sides, legible, settings)
    return _findings(questions, loaded, options, sides, legible, parts, moved, law)


def _findings(
    questions: Questions,
    loaded: LoadedModel,
    options: NotebookOptions,
    sides: Split,
    legible: Legible,
    parts: Parts,
    moved: Pushed | None,
    law: Law,
) -> Findings:
    accounts = questions.accounts
    tables: list[Table] = []
    figures: list[Figure] = []
    numbers: dict[str, Cell] = {}
    published = published_for(loaded.name, NOTEBOOK) or {}
    sizes = {"training texts": len(sides.train), "test texts": len(sides.test)}
    notes = [law.told]
    if "probes" in options.parts:
        curve = emotion_curve(accounts, sides, legible, published, options.seed)
        tables += [curve.table, curve.positions]
        figures += curve_figures(curve, clean_line(loaded.name), len(sides.test))
        numbers |= _headlines(curve, legible)
        notes += _probe_notes(questions, sides, legible, curve, bool(published), loaded.name)
    if "appraisals" in options.parts:
        found = appraisal_tables(accounts, sides, legible, options.seed)
        tables += found
        numbers["appraisals, mean R²"] = found[0].rows[-1][1]
        numbers["appraisals, mean R², TF-IDF"] = found[0].rows[-1][4]
    if moved is not None:
        tables += moved.tables
        figures += _effect_figures(moved)
        sizes |= {"texts pushed": moved.texts, "pairs patched": moved.pairs}
        notes += _push_notes(moved, parts, len(sides.test))
    return Findings(
        study="notebook",
        title="Emotions and appraisals of crowd-enVENT",
        source=f"course notebook after {TAK}",
        model=loaded.name,
        sizes=sizes,
        settings={
            "model": loaded.name,
            "texts": accounts.source,
            "encoding": accounts.encoding,
            "limit": accounts.limit,
            "layers": list(legible.layers),
            "parts": [part for part in PARTS if part in options.parts],
            "seed": options.seed,
            "put aside": dict(accounts.put_aside) | dict(questions.left_out),
        },
        tables=tuple(tables),
        figures=tuple(figures),
        notes=tuple(notes),
        numbers=numbers,
    )


def _headlines(curve: Curve, legible: Legible) -> Mapping[str, Cell]:
    accuracies = curve.table.column("accuracy")
    best = int(legible.right[:, -1].mean(-1).argmax())
    return {
        "chance by frequency": curve.chance,
        "TF-IDF": curve.tfidf,
        "primary layer": legible.layers[legible.primary],
        "primary": accuracies[legible.primary],
        "best layer": legible.layers[best],
        "best": accuracies[best],
    }


def _probe_notes(
    questions: Questions,
    sides: Split,
    legible: Legible,
    curve: Curve,
    is_published: bool,
    model: str,
) -> list[str]:
    groups = questions.accounts.groups
    copies = int(np.isin(groups[sides.test], groups[sides.train]).sum())
    notes = [
        "A fifth of the texts is held out at random, not by emotion, as in the notebook; "
        f"{copies} of {len(sides.test)} test texts have a copy among those learned from.",
        *_missing_note(questions.accounts, sides),
        "The primary layer is the best of five folds of the training texts; the best layer on the "
        "test texts is chosen with hindsight.",
    ]
    left = dict(questions.accounts.put_aside) | dict(questions.left_out)
    if left:
        notes.append(
            "Put aside: " + ", ".join(f"{n:,} {reason}" for reason, n in left.items()) + "."
        )
    if legible.control is None:
        notes.append("There is no control task: fewer than three first words are common enough.")
    else:
        notes.append(
            f"The control task tells the first word of {curve.control_n} test texts among "
            f"{', '.join(clean_line(word, 20) for word in legible.control.words)}."
        )
    if legible.unsolved:
        notes.append(f"{legible.unsolved} probes did not reach their tolerance.")
    notes.append(
        "Published: 6,600 texts; its last layer is read before the final norm, ours behind it."
        if is_published
        else f"The notebook has no figures of {clean_line(model)!r}."
    )
    return notes


def _missing_note(accounts: Accounts, sides: Split) -> list[str]:
    found = np.bincount(accounts.emotions[sides.test], minlength=len(accounts.labels))
    missing = [label for label, n in zip(accounts.labels, found, strict=True) if not n]
    listed = ", ".join(clean_line(label, 40) for label in missing)
    return [f"No test text is of {listed}: nothing is said of them."] if missing else []


def _push_notes(moved: Pushed, parts: Parts, n: int) -> list[str]:
    answered = (
        "label words begin with the same token, so that the model's own answer cannot be told"
        if moved.answered is None
        else f"the model itself answers {moved.answered} of {n} test texts right"
    )
    notes = [
        f"Pushed are test texts told right by {moved.chosen_by}: {answered}, and the primary "
        f"probe tells {moved.probed}. They were chosen for being told right, so a loss is partly "
        "regression to the mean; the random control shows how much.",
        "Only the last token is pushed, at the sites named; layers count as in the other tables, "
        "and `residual` is what a block is given.",
        "Pairs share texts; their intervals resample the patched texts.",
        "Where the residual of the last block is replaced, nothing done before it is left: "
        "knock-out and patching of the residual are the same for all spans that reach it.",
    ]
    missing = [kind for kind in ("attention", "mlp") if kind not in parts.kinds]
    if missing:
        notes.append(
            f"No site {' or '.join(missing)}: not every block has exactly one module called so."
        )
    return notes


def _effect_figures(moved: Pushed) -> list[Figure]:
    """Draw the label words, or the later probe where words cannot be told apart."""
    what = "probe" if moved.answered is None else "word"
    columns = {
        "knock-out": (f"{what}, zero", f"{what}, random"),
        "patching": (what, f"{what}, random"),
        "promotion": (what, f"{what}, random"),
    }
    return [
        effect_figure(table, columns[table.name], f"change of log-probability, {what}")
        for table in moved.tables
        if table.name in columns
    ]
