"""Tables of what is legible: emotions by layer and position, appraisals by layer and dimension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from emowatch.studies.findings import Cell, Table
from emowatch.studies.notebook.accounts import APPRAISALS, Accounts, Doubles, Ints
from emowatch.studies.notebook.floors import (
    emotions_from_appraisals,
    tfidf_appraisals,
    tfidf_emotions,
)
from emowatch.studies.notebook.probes import SHUFFLES, Legible, Split
from emowatch.studies.notebook.resampling import Resampling, basic, estimate
from emowatch.studies.notebook.states import POSITIONS
from emowatch.studies.nulls import SHARE, spread_of
from emowatch.workshop.metrics import Estimate


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy by layer, with what stands beside it."""

    table: Table
    positions: Table
    chance: float
    """Share of the test texts that are of the commonest training emotion."""
    tfidf: Estimate
    control_chance: float | None
    """Share of the control task's test texts with the commonest first word of training."""
    control_n: int


def emotion_curve(
    accounts: Accounts,
    sides: Split,
    legible: Legible,
    published: Mapping[int, float],
    seed: int,
) -> Curve:
    """Measure the probes beside all floors.

    Args:
        accounts: the texts.
        sides: learned from and measured on.
        legible: what the probes said.
        published: accuracy by layer that the notebook prints for this model.
        seed: of the bootstrap.
    """
    resampling = Resampling(accounts.groups[sides.test], seed=seed)
    control = legible.control
    known_words = np.full(legible.right.shape[::2], np.nan)  # [layers, test texts]
    control_chance = None
    if control is not None:
        known_words[:, np.searchsorted(sides.test, control.test)] = legible.control_right
        control_chance = _chance(control.train_words, control.test_words)
    rows: list[tuple[Cell, ...]] = []
    for place, layer in enumerate(legible.layers):
        accuracy = resampling.mean(legible.right[place, -1])
        word: Cell = None
        selectivity: Cell = None
        if control is not None:
            word = resampling.mean(known_words[place])
            right, told = (
                resampling.means(one) for one in (legible.right[place, -1], known_words[place])
            )
            selectivity = estimate(right - told)
        rows.append(
            (
                layer,
                accuracy,
                spread_of(legible.shuffled[place], SHARE),
                resampling.mean(legible.mlp[place]),
                word,
                selectivity,
                published.get(layer),
            )
        )
    chance = _chance(accounts.emotions[sides.train], accounts.emotions[sides.test])
    tfidf = resampling.mean(tfidf_emotions(accounts, sides))
    primary = legible.layers[legible.primary]
    table = Table(
        name="curve",
        title="Accuracy on 13 emotions by layer, last token"
        if len(accounts.labels) == 13
        else f"Accuracy on {len(accounts.labels)} emotions by layer, last token",
        columns=(
            "layer",
            "accuracy",
            "shuffled labels",
            "MLP",
            "first word",
            "selectivity",
            "published",
        ),
        rows=tuple(rows),
        note=f"Chance by frequency {chance:.3f}, TF-IDF {tfidf.value:.3f} [{tfidf.low:.3f}, "
        f"{tfidf.high:.3f}]; layer {primary} was chosen within the training texts. Shuffled "
        f"labels: the mean of {SHUFFLES} orders, and where 95 % of such probes would lie. "
        "Selectivity is "
        "the accuracy less that on first words"
        + (f", whose chance is {control_chance:.3f}." if control_chance is not None else "."),
    )
    positions = Table(
        name="positions",
        title="Accuracy by layer and position",
        columns=("layer", *(str(position) for position in POSITIONS)),
        rows=tuple(
            (layer, *(resampling.mean(one) for one in legible.right[place]))
            for place, layer in enumerate(legible.layers)
        ),
        note="Positions count from the end of the prompt; the last token is -1.",
    )
    return Curve(
        table,
        positions,
        chance,
        tfidf,
        control_chance,
        0 if control is None else len(control.test),
    )


def _chance(train: Ints, test: Ints) -> float:
    """Give the share of `test` that is of the commonest class of `train`."""
    return float((test == np.bincount(train).argmax()).mean())


def appraisal_tables(
    accounts: Accounts, sides: Split, legible: Legible, seed: int
) -> tuple[Table, Table, Table]:
    """Measure ridge readings by dimension at the primary layer, by layer, and what ratings tell
    of the emotion."""
    resampling = Resampling(accounts.groups[sides.test], seed=seed)
    true = accounts.appraisals[sides.test]
    learned = accounts.appraisals[sides.train]
    primary = legible.primary
    floor = np.broadcast_to(learned.mean(0), true.shape)
    sources = {
        "states": legible.appraisals[primary],
        "mean": floor,
        "TF-IDF": tfidf_appraisals(accounts, sides),
    }
    nulls = [_null(resampling, true, orders) for orders in legible.appraisals_shuffled]
    explained = {name: _explained(resampling, true, said) for name, said in sources.items()}
    agreed = _agreed(resampling, true, sources["states"])
    names: list[str] = [*APPRAISALS, "mean of all"]
    rows: list[tuple[Cell, ...]] = []
    for number, name in enumerate(names):
        which = slice(None) if number == len(APPRAISALS) else slice(number, number + 1)
        cells = [basic(explained[source][which].mean(0)) for source in sources]
        null = spread_of(nulls[primary][:, which].mean(1))
        rows.append((name, cells[0], estimate(agreed[which].mean(0)), *cells[1:], null))
    layer = legible.layers[primary]
    by_dimension = Table(
        name="appraisals",
        title=f"Appraisals read from layer {layer}, last token",
        columns=("appraisal", "R²", "r", "R², mean", "R², TF-IDF", "R², shuffled"),
        rows=tuple(rows),
        note="Ridge with alpha 5 on raw states; the mean is that of the training texts. An R² "
        "below 0 is worse than to know the test texts' mean. Shuffled: the mean of "
        f"{SHUFFLES} orders of the ratings, and where 95 % of further ones would lie.",
    )
    by_layer = Table(
        name="appraisal-layers",
        title="Appraisals by layer, mean of all dimensions",
        columns=("layer", "R²", "r", "R², shuffled"),
        rows=tuple(
            (
                layer,
                basic(_explained(resampling, true, legible.appraisals[place]).mean(0)),
                estimate(_agreed(resampling, true, legible.appraisals[place]).mean(0)),
                spread_of(nulls[place].mean(1)),
            )
            for place, layer in enumerate(legible.layers)
        ),
    )
    return by_dimension, by_layer, _emotion_table(accounts, sides, legible, resampling)


def _emotion_table(
    accounts: Accounts, sides: Split, legible: Legible, resampling: Resampling
) -> Table:
    """Tell emotions from the writers' own ratings, and from those read off states."""
    emotions = accounts.emotions
    own, read = emotions_from_appraisals(
        accounts.appraisals[sides.train],
        emotions[sides.train],
        [accounts.appraisals[sides.test], legible.appraisals[legible.primary]],
    )
    rows = tuple(
        (name, resampling.mean((told == emotions[sides.test]).astype(np.float64)))
        for name, told in (("rated by the writer", own), ("read from the states", read))
    )
    chance = _chance(emotions[sides.train], emotions[sides.test])
    return Table(
        name="appraisals-to-emotion",
        title="Emotions told from the 20 appraisals alone",
        columns=("appraisals", "accuracy"),
        rows=rows,
        note=f"Logistic regression on the writers' ratings; chance by frequency {chance:.3f}.",
    )


def _explained(resampling: Resampling, true: Doubles, said: Doubles) -> Doubles:
    """Give R² ``[dimensions, 1 + resamples]`` of predictions ``[texts, dimensions]``."""
    n = resampling.sums(np.ones(len(true)))
    total, squares = resampling.sums(true.T), resampling.sums(true.T**2)
    errors = resampling.sums((true - said).T ** 2)
    spread = squares - total**2 / n
    return 1 - np.divide(errors, spread, out=np.full_like(errors, np.nan), where=spread > 0)


def _null(resampling: Resampling, true: Doubles, orders: Doubles) -> Doubles:
    """Give R² ``[orders, dimensions]`` of predictions ``[orders, texts, dimensions]``."""
    return np.stack([_explained(resampling, true, said)[:, 0] for said in orders])


def _agreed(resampling: Resampling, true: Doubles, said: Doubles) -> Doubles:
    """Give Pearson's r ``[dimensions, 1 + resamples]``."""
    n = resampling.sums(np.ones(len(true)))
    x, y = resampling.sums(true.T), resampling.sums(said.T)
    xx, yy = resampling.sums(true.T**2), resampling.sums(said.T**2)
    xy = resampling.sums((true * said).T)
    size = np.sqrt(np.clip((xx - x**2 / n) * (yy - y**2 / n), 0, None))
    return np.divide(xy - x * y / n, size, out=np.full_like(xy, np.nan), where=size > 1e-9)
