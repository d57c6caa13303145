"""Choose whose answers are pushed, and run all interventions on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emowatch.errors import StudyError
from emowatch.model.loading import LoadedModel
from emowatch.studies.findings import Table
from emowatch.studies.notebook.accounts import Doubles, Ints
from emowatch.studies.notebook.answers import Batch, label_tokens
from emowatch.studies.notebook.effects import (
    Scene,
    knock_out_table,
    patch_table,
    promotion_tables,
    surgery_table,
)
from emowatch.studies.notebook.interventions import (
    CONSTANTS,
    PUSH_SPAN,
    UNTOUCHED,
    knock_outs,
    patches,
    promotions,
    surgeries,
)
from emowatch.studies.notebook.outcomes import Outcomes, Reader
from emowatch.studies.notebook.probes import Legible, Split
from emowatch.studies.notebook.resampling import Resampling
from emowatch.studies.notebook.running import Intervention, run_interventions
from emowatch.studies.notebook.sites import Parts, Site
from emowatch.studies.notebook.states import Questions
from emowatch.workshop.preparation import Report

FEWEST = 30
"""Texts that the model itself must answer right, for its own answers to choose them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushing:
    """How much is pushed, and where work is kept."""

    texts: int = 200
    """At most."""
    pairs: int = 200
    """Of texts that are patched from each other, at most."""
    seed: int = 42
    batch_tokens: int
    work: Path
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What came of it."""

    tables: tuple[Table, ...]
    answered: int | None
    """Test texts that the model answers right, by the likeliest label word; `None` where words
    begin alike."""
    probed: int
    """Test texts that the primary probe gets right."""
    chosen_by: str
    texts: int
    pairs: int


def push(
    loaded: LoadedModel,
    parts: Parts,
    questions: Questions,
    sides: Split,
    legible: Legible,
    options: Pushing,
) -> Pushed:
    """Run knock-outs, promotion and surgery on test texts that are answered right, and patches on
    pairs of them.

    Raises:
        StudyError: if fewer than two emotions have a text that is answered right.
    """
    accounts = questions.accounts
    words = label_tokens(loaded.tokenizer, accounts.labels)
    reader = Reader(
        words,
        legible.weight[-1],
        legible.bias[-1],
        legible.ridge_weight[-1],
        legible.ridge_bias[-1],
    )
    runner = _Runner(loaded, parts, questions, reader, options)
    own = runner.run("reading answers", [UNTOUCHED], sides.test)
    emotions = accounts.emotions[sides.test]
    answered = None
    right = legible.right[legible.primary, -1].astype(bool)
    probed, chosen_by = int(right.sum()), "the probe of the primary layer"
    if words is not None:
        told = own.words("untouched").argmax(1) == emotions
        answered = int(told.sum())
        if answered >= FEWEST:
            right, chosen_by = told, "the model's own answers"
    chosen = _some(sides.test[right], options.texts, options.seed)
    if len(set(accounts.emotions[chosen].tolist())) < 2:
        raise StudyError(
            f"Could not push any answers: of {len(sides.test)} test texts {len(chosen)} are told "
            "right, and none is of a second emotion. Give more texts, or leave interventions out "
            "with --parts probes,appraisals."
        )
    tables = _on_texts(runner, chosen, sides, legible)
    patched, pairs = _on_pairs(runner, chosen)
    return Pushed(
        tables=(tables[0], patched, *tables[1:]),
        answered=answered,
        probed=probed,
        chosen_by=chosen_by,
        texts=len(chosen),
        pairs=pairs,
    )


class _Runner:
    """Runs interventions on some of the accounts."""

    def __init__(
        self,
        loaded: LoadedModel,
        parts: Parts,
        questions: Questions,
        reader: Reader,
        options: Pushing,
    ) -> None:
        self.loaded = loaded
        self.parts = parts
        self.questions = questions
        self.reader = reader
        self.options = options

    def run(
        self,
        step: str,
        interventions: Sequence[Intervention],
        texts: Ints,
        *more: Tensor,
    ) -> Outcomes:
        """Run them on the accounts numbered `texts`; `more` is what else they depend on."""
        digest = hashlib.sha256()
        for tensor in (self.reader.weight, self.reader.ridge_weight, *more):
            digest.update(tensor.contiguous().numpy().tobytes())
        outputs = run_interventions(
            self.loaded.model,
            self.parts,
            [self.questions.passages[place].ids for place in texts.tolist()],
            interventions,
            self.reader,
            self.options.work,
            key=[CONSTANTS, self.reader.words, self.options.seed, digest.hexdigest()],
            batch_tokens=self.options.batch_tokens,
            report=self.options.report,
            step=step,
        )
        return Outcomes(interventions, outputs, self.reader.n_labels)

    def scene(self, texts: Ints) -> Scene:
        """Describe some of the accounts."""
        accounts = self.questions.accounts
        return Scene(
            accounts.emotions[texts],
            accounts.labels,
            Resampling(accounts.groups[texts], seed=self.options.seed),
            self.parts.kinds,
            self.parts.blocks.n_layers,
        )


def _on_texts(runner: _Runner, chosen: Ints, sides: Split, legible: Legible) -> tuple[Table, ...]:
    parts, seed = runner.parts, runner.options.seed
    accounts = runner.questions.accounts
    n_layers = parts.blocks.n_layers
    start = max(1, min(legible.layers[legible.primary], n_layers - PUSH_SPAN))
    weights, ridge = legible.weight[:n_layers], legible.ridge_weight[:n_layers]
    found = runner.run(
        "pushing answers",
        [
            UNTOUCHED,
            *knock_outs(parts, seed),
            *promotions(parts, weights, accounts.labels, seed),
            *surgeries(parts, ridge, start, seed),
        ],
        chosen,
        torch.cat([weights, ridge], 2),
        torch.tensor([start]),
    )
    scene = runner.scene(chosen)
    profiles = _profiles(accounts.appraisals, accounts.emotions, sides.train, len(accounts.labels))
    return (
        knock_out_table(scene, found),
        *promotion_tables(scene, found, start),
        surgery_table(scene, found, profiles, start),
    )


def _on_pairs(runner: _Runner, chosen: Ints) -> tuple[Table, int]:
    """Patch texts from others of another emotion."""
    emotions = runner.questions.accounts.emotions
    targets, sources = _pairs(emotions[chosen], runner.options.pairs, runner.options.seed)
    held = _states_at(runner, chosen)
    taken = {site: states[torch.from_numpy(sources)] for site, states in held.items()}
    found = runner.run(
        "patching answers",
        [UNTOUCHED, *patches(runner.parts, taken, runner.options.seed)],
        chosen[targets],
        torch.from_numpy(np.stack([chosen[sources], chosen[targets]])),
    )
    table = patch_table(runner.scene(chosen[targets]), found, emotions[chosen[sources]])
    return table, len(targets)


def _states_at(runner: _Runner, texts: Ints) -> Mapping[Site, Tensor]:
    """Read what stands at every site at the last token of some texts ``[texts, d_model]``."""
    parts = runner.parts
    sites = [Site(kind, n) for kind in parts.kinds for n in range(parts.blocks.n_layers)]
    read: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for number, place in enumerate(texts.tolist()):
        prompt = runner.questions.passages[place].ids
        batch = Batch(runner.loaded.model, parts, torch.tensor([number]), [prompt])
        for site, state in batch.answer({}, sites)[1].items():
            read[site].append(state)
        runner.options.report("reading sites", number + 1, len(texts))
    return {site: torch.cat(states) for site, states in read.items()}


def _pairs(emotions: Ints, most: int, seed: int) -> tuple[Ints, Ints]:
    """Draw ordered pairs of texts of two emotions, none twice: numbers of targets and sources."""
    apart = np.argwhere(emotions[:, None] != emotions[None, :])
    chosen = apart[np.sort(np.random.default_rng(seed).permutation(len(apart))[:most])]
    return chosen[:, 0], chosen[:, 1]


def _some(texts: Ints, most: int, seed: int) -> Ints:
    return np.sort(texts[np.random.default_rng(seed).permutation(len(texts))[:most]])


def _profiles(ratings: Doubles, emotions: Ints, train: Ints, n_labels: int) -> Doubles:
    """Average the ratings of training texts by emotion ``[labels, 20]``."""
    mine, labels = ratings[train], emotions[train]
    return np.stack([mine[labels == number].mean(0) for number in range(n_labels)])
