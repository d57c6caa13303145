"""What was measured of persistence, as tables and figures."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from emowatch.studies.findings import Cell, Figure, Findings, Table
from emowatch.studies.nulls import SHARE, spread_of
from emowatch.studies.persistence.curves import FEWEST, estimate_at, half_life
from emowatch.studies.persistence.drawing import draw_accuracy, draw_labels, draw_lags
from emowatch.studies.persistence.measured import Measured
from emowatch.studies.persistence.survival import effective_number
from emowatch.studies.published import PAPER_A
from emowatch.studies.setting import Setting
from emowatch.workshop.options import TrainOptions

Doubles = NDArray[np.float64]
SHOWN = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 400, 512)
"""Offsets of the table; the CSV files have all."""


def report_findings(setting: Setting, options: TrainOptions, measured: Measured) -> Findings:
    """Lay everything out."""
    card = measured.card
    every = _offsets(measured, range(measured.reach), "accuracy")
    labels = _recalls(measured)
    lags = _lags(measured)
    lives = _half_lives(measured)
    return Findings(
        study="persistence",
        title="Persistence of the message's emotion in the reply",
        source=f"{PAPER_A}, Figure 7",
        model=setting.loaded.name,
        sizes={
            "training messages": len(setting.train),
            "test replies": len(measured.found.labels),
            "test states": int(measured.found.alive.sum()),
        },
        settings=setting.described
        | {
            "head": card.head,
            "layer": card.primary,
            "longest reply": options.max_new_tokens,
            "states of each training reply": options.states_per_reply,
            "replies sampled": options.sample,
            "thinking": options.thinks,
        },
        tables=(
            _offsets(measured, [k for k in SHOWN if k < measured.reach], "offsets"),
            lives,
            lags,
        ),
        figures=(
            Figure(
                name="accuracy",
                caption="Balanced accuracy by offset in the reply; bands are 95 % intervals. The "
                "reply alone is read behind a message without words, by a head of its own: what "
                "lies above it is state and not text.",
                draw=partial(draw_accuracy, measured=measured),
                data=every,
            ),
            Figure(
                name="recall",
                caption="Recall of each emotion by offset, survivorship weighted, with 95 % bands, "
                f"as far as {FEWEST} replies of each label reach; grey: replies left.",
                draw=partial(draw_labels, measured=measured),
                data=labels,
                size=(9.0, 5.6),
            ),
            Figure(
                name="lags",
                caption="How alike readings are so many tokens apart: emotion directions, and "
                "random ones along which states vary as much.",
                draw=partial(draw_lags, measured=measured),
                data=lags,
            ),
        ),
        notes=_notes(measured, options.max_new_tokens),
        numbers=_numbers(measured),
    )


def _offsets(measured: Measured, offsets: range | list[int], name: str) -> Table:
    counts = measured.found.counts
    worth = effective_number(measured.weights)
    residual = measured.weighted.accuracy - measured.leak.accuracy
    rows: list[tuple[Cell, ...]] = [
        (
            k,
            int(counts[:, k].sum()),
            int(counts[:, k].min()),
            float(worth[k]),
            estimate_at(measured.observed.accuracy, k),
            estimate_at(measured.weighted.accuracy, k),
            estimate_at(measured.leak.accuracy, k),
            estimate_at(residual, k),
            spread_of(measured.nulls[:, k], SHARE),
        )
        for k in offsets
    ]
    return Table(
        name=name,
        title="Balanced accuracy by offset",
        columns=(
            "offset",
            "replies",
            "fewest of a label",
            "worth",
            "those left",
            "survivorship weighted",
            "reply alone",
            "residual",
            "shuffled labels",
        ),
        rows=tuple(rows),
        note=f"Chance {1 / measured.found.n_labels:.3f}. Worth: as many equal replies as the "
        "weighted ones. Reply alone: the same replies behind a message without words. Residual: "
        "weighted less reply alone. "
        f"Shuffled labels: the mean of {len(measured.nulls)} orders, and where 95 % of such heads "
        "would lie.",
        digits={"worth": 0},
    )


def _recalls(measured: Measured) -> Table:
    counts, reach = measured.found.counts, measured.reach
    rows = [
        (
            name,
            k,
            int(counts[label, k]),
            estimate_at(measured.observed.recall[:, label], k),
            estimate_at(measured.weighted.recall[:, label], k),
            estimate_at(measured.weighted.informedness[:, label], k),
            estimate_at(measured.leak.informedness[:, label], k),
            estimate_at(_residual(measured, label), k),
        )
        for label, name in enumerate(measured.card.labels)
        for k in range(reach)
    ]
    return Table(
        name="recall",
        title="Recall by label and offset",
        columns=(
            "label",
            "offset",
            "replies",
            "those left",
            "weighted",
            "informedness",
            "reply alone",
            "residual",
        ),
        rows=tuple(rows),
    )


def _residual(measured: Measured, label: int) -> Doubles:
    """Informedness of a label less what the reply alone tells ``[1 + resamples, offsets]``."""
    return measured.weighted.informedness[:, label] - measured.leak.informedness[:, label]


def _half_lives(measured: Measured) -> Table:
    counts, reach = measured.found.counts, measured.reach
    rows = []
    for label, name in enumerate(measured.card.labels):
        informed = measured.weighted.informedness[:, label, :reach]
        plain = measured.observed.informedness[:, label, :reach]
        rows.append(
            (
                name,
                int(counts[label, 0]),
                estimate_at(measured.weighted.recall[:, label], 0),
                estimate_at(informed, 0),
                half_life(informed),
                half_life(informed, start=1),
                half_life(plain),
                half_life(_residual(measured, label)[:, :reach]),
            )
        )
    return Table(
        name="half_lives",
        title="Half-life of each emotion, in tokens",
        columns=(
            "label",
            "replies",
            "recall at offset 0",
            "informedness at 0",
            "half-life",
            "from offset 1",
            "of those left",
            "of the residual",
        ),
        rows=tuple(rows),
        note="Informedness is recall less the rate at which messages of other labels are taken "
        f"for this one: 0 at chance. 'beyond': not within the {reach} offsets that {FEWEST} "
        "replies of every label reach; a dash: not told from chance to begin with. Of the "
        "residual: informedness less that of the reply alone.",
        digits=dict.fromkeys(("half-life", "from offset 1", "of those left", "of the residual"), 0),
    )


def _lags(measured: Measured) -> Table:
    found = measured.persistence
    rows: list[tuple[Cell, ...]] = []
    for place, lag in enumerate(found.lags):
        emotion, random = found.emotion[place], found.random[place]
        rows.append(
            (
                lag,
                found.pairs[place],
                estimate_at(emotion.mean(1, keepdims=True), 0),
                estimate_at(random.mean(1, keepdims=True), 0),
                estimate_at((emotion - random).mean(1, keepdims=True), 0),
                *(
                    estimate_at(emotion[:, [label]] - random[:, [label]], 0)
                    for label in range(emotion.shape[1])
                ),
            )
        )
    return Table(
        name="lags",
        title="Correlation of readings so many tokens apart",
        columns=(
            "lag",
            "pairs",
            "emotion directions",
            "random directions",
            "residual",
            *measured.card.labels,
        ),
        rows=tuple(rows),
        note="Random directions vary as much as their emotion's "
        f"(to {found.mismatch:.1%}). Under each label: its residual.",
    )


def _notes(measured: Measured, longest: int) -> tuple[str, ...]:
    last = measured.reach - 1
    why = f"fewer than {FEWEST} replies of some label go further"
    if measured.reach == longest:
        why = f"replies were cut at {longest} tokens"
    elif measured.reach == measured.found.alive.shape[1]:
        why = "no reply goes further"
    notes = [
        f"The curves end at offset {last}: {why}.",
        "Survivorship weights use what is known at offset 0: the label, the length of the prompt, "
        "whether the head is right there, and how surely. They are held fixed in the resamples. "
        "What else makes a reply end is not weighed.",
        f"The reply alone is read at layer {measured.alone_layer}, which validation likes best for "
        "it. It stands behind an empty message, so its head also sees states that the "
        "model would not have there; and words that the message put into the reply are part of "
        "how an emotion persists. Residual is what the state holds beyond them.",
        "At offset 0 nothing of the reply is there: what the reply alone reads there is chance.",
    ]
    if measured.wanted is not None and measured.wanted >= measured.reach:
        notes.insert(0, f"Offset {measured.wanted} was asked for and not reached.")
    notes += measured.cautions
    if measured.left_out:
        reasons = ", ".join(f"{n} {reason}" for reason, n in measured.left_out.items())
        notes.append(f"Test messages left out: {reasons}.")
    return tuple(notes)


def _numbers(measured: Measured) -> dict[str, Cell]:
    last = measured.reach - 1
    numbers: dict[str, Cell] = {"chance": 1 / measured.found.n_labels, "last offset": last}
    for k in sorted({0, min(8, last), last}):
        residual = measured.weighted.accuracy - measured.leak.accuracy
        numbers[f"accuracy at offset {k}"] = estimate_at(measured.weighted.accuracy, k)
        numbers[f"residual at offset {k}"] = estimate_at(residual, k)
    for label, name in enumerate(measured.card.labels):
        life = half_life(measured.weighted.informedness[:, label, : measured.reach])
        numbers[f"half-life of {name}"] = life
        residual_life = half_life(_residual(measured, label)[:, : measured.reach])
        numbers[f"half-life of {name}, residual"] = residual_life
    return numbers
