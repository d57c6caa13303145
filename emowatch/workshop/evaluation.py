"""Measure a bank beside its floors: chance, TF-IDF with logistic regression, shuffled labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emowatch.bank.card import Evaluation, Interval, LayerMetrics, OffsetMetrics
from emowatch.bank.probe_bank import ProbeBank
from emowatch.workshop.metrics import Estimate, Report, group_means, perfect_ece, report
from emowatch.workshop.sets import measure_sets, set_columns
from emowatch.workshop.text_baseline import TextBaseline


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRows:
    """States of a test set with what is known of each row."""

    __test__ = False  # not a test class, whatever its name tells pytest

    states: Tensor
    """``[layers, rows, d_model]``, the layers of the bank."""
    labels: Tensor
    """``[rows]``."""
    offsets: Tensor
    """``[rows]``."""
    examples: Sequence[int]
    """``[rows]``: the number of each row's example."""
    groups: Sequence[int]
    """``[rows]``: rows of one group are resampled together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport(LayerMetrics):
    """All that was measured of one layer; a card keeps the shares and counts of one layer only."""

    precision: Mapping[str, float]
    """By label, those that were never predicted left out."""
    precision_interval: Mapping[str, Interval]
    recall: Mapping[str, float]
    """By label, those without test rows left out."""
    recall_interval: Mapping[str, Interval]
    confusion: tuple[tuple[int, ...], ...]
    """Rows are true labels, columns predicted ones."""
    confusion_interval: tuple[tuple[Interval, ...], ...]


def for_card(evaluation: Evaluation) -> Evaluation:
    """Keep what a card has room for: of all layers but the primary, one line each."""
    names = [one.name for one in fields(LayerMetrics)]
    brief = (
        LayerMetrics(**{name: getattr(layer, name) for name in names})
        for layer in evaluation.layers
    )
    return replace(evaluation, layers=tuple(brief))


def evaluate(
    bank: ProbeBank,
    rows: TestRows,
    *,
    data: str,
    sha256: str,
    texts: tuple[Sequence[str], Sequence[int], Sequence[int]] | None = None,
    baseline: TextBaseline | None = None,
    shuffled: ProbeBank | None = None,
    seed: int = 0,
    note: str = "",
    unlike: Mapping[str, TestRows] | None = None,
) -> Evaluation:
    """Measure every layer of `bank` on rows it has not seen.

    Args:
        bank: heads to measure.
        rows: the test set, classes of equal size.
        data: name of the test set.
        sha256: of its file.
        texts: test texts, classes and groups, for the text baseline.
        baseline: fitted to the texts the bank learned from; without it there is no text
            baseline.
        shuffled: a bank of the same kind, fitted to shuffled labels.
        seed: of the bootstrap.
        note: what a reader must know of this test set.
        unlike: by kind, states of texts that a bank which can abstain should abstain from.
    """
    reports = _reports(bank, rows, seed)
    null = None
    if shuffled is not None:
        null = [found.balanced_accuracy for found in _reports(shuffled, rows, seed)]
    floor = None
    if baseline is not None and texts is not None:
        floor = report(
            baseline.scores(texts[0]), list(texts[1]), list(texts[2]), seed=seed
        ).balanced_accuracy
    names = bank.card.labels
    layers = tuple(
        _layer_report(layer, names, found, None if null is None else null[place])
        for place, (layer, found) in enumerate(zip(bank.card.layers, reports, strict=True))
    )
    primary = layers[bank.card.layers.index(bank.card.primary)]
    per_class = torch.bincount(rows.labels, minlength=len(names)).tolist()
    place = bank.card.layers.index(bank.card.primary)
    scores = bank.heads.only([place]).scores(rows.states[place : place + 1], rows.offsets)[0]
    others = {
        kind: (of.states[place], of.offsets, of.groups) for kind, of in (unlike or {}).items()
    }
    return Evaluation(
        data=data,
        sha256=sha256,
        n=len(set(rows.examples)),
        rows=len(rows.labels),
        per_class_rows=dict(zip(names, per_class, strict=True)),
        chance=1 / len(names),
        tfidf_balanced_accuracy=None if floor is None else _round(floor.value),
        tfidf_balanced_accuracy_interval=None if floor is None else _interval(floor.interval),
        layers=layers,
        precision=primary.precision,
        precision_interval=primary.precision_interval,
        recall=primary.recall,
        recall_interval=primary.recall_interval,
        confusion=primary.confusion,
        by_offset=_by_offset(bank, rows, seed),
        note=note,
        ece_null=_round(perfect_ece(scores.numpy(), rows.groups, seed=seed)),
        sets=measure_sets(
            bank,
            rows.states[place],
            rows.labels,
            rows.offsets,
            rows.groups,
            others,
            seed=seed,
        ),
    )


def _reports(bank: ProbeBank, rows: TestRows, seed: int) -> list[Report]:
    scores = bank.heads.scores(rows.states, rows.offsets).numpy()
    labels = rows.labels.numpy()
    return [report(s, labels, rows.groups, seed=seed) for s in scores]


def _layer_report(
    layer: int, names: Sequence[str], found: Report, null: Estimate | None
) -> LayerReport:
    precision, precision_interval = _by_label(names, found.precisions)
    recall, recall_interval = _by_label(names, found.recalls)
    return LayerReport(
        layer=layer,
        balanced_accuracy=_round(found.balanced_accuracy.value),
        balanced_accuracy_interval=_interval(found.balanced_accuracy.interval),
        macro_f1=_round(found.macro_f1.value),
        macro_f1_interval=_interval(found.macro_f1.interval),
        ece=_round(found.ece.value),
        ece_interval=_interval(found.ece.interval),
        shuffled_balanced_accuracy=None if null is None else _round(null.value),
        shuffled_balanced_accuracy_interval=None if null is None else _interval(null.interval),
        precision=precision,
        precision_interval=precision_interval,
        recall=recall,
        recall_interval=recall_interval,
        confusion=tuple(tuple(int(n) for n in row) for row in found.confusion),
        confusion_interval=tuple(
            tuple((float(low), float(high)) for low, high in row)
            for row in found.confusion_interval
        ),
    )


def _by_label(
    names: Sequence[str], estimates: Sequence[Estimate | None]
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Name the estimates that could be made, and their intervals."""
    pairs = [(n, e) for n, e in zip(names, estimates, strict=True) if e is not None]
    return {n: _round(e.value) for n, e in pairs}, {n: _interval(e.interval) for n, e in pairs}


def _by_offset(bank: ProbeBank, rows: TestRows, seed: int) -> tuple[OffsetMetrics, ...]:
    """Accuracy of the primary layer in each calibration bin; replies that ended drop out."""
    last = int(rows.offsets.max())
    if last == 0:
        return ()
    place = bank.card.layers.index(bank.card.primary)
    edges = [*(first for first in bank.card.bins if first <= last), last + 1]
    found = []
    for first, after in itertools.pairwise(edges):
        chosen = (rows.offsets >= first) & (rows.offsets < after)
        if int(chosen.sum()) < 20:
            continue
        states = rows.states[place : place + 1, chosen]
        scores = bank.heads.only([place]).scores(states, rows.offsets[chosen]).numpy()[0]
        groups = [g for g, c in zip(rows.groups, chosen.tolist(), strict=True) if c]
        labels = rows.labels[chosen].numpy()
        one = report(scores, labels, groups, seed=seed)
        found.append(
            OffsetMetrics(
                first=first,
                last=after - 1,
                n=len({e for e, c in zip(rows.examples, chosen.tolist(), strict=True) if c}),
                balanced_accuracy=_round(one.balanced_accuracy.value),
                balanced_accuracy_interval=_interval(one.balanced_accuracy.interval),
                ece=_round(one.ece.value),
                ece_interval=_interval(one.ece.interval),
                ece_null=_round(perfect_ece(scores, groups, seed=seed)),
                **_sets_in(bank, rows, place, chosen, seed),
            )
        )
    return tuple(found)


def _sets_in(
    bank: ProbeBank, rows: TestRows, place: int, chosen: Tensor, seed: int
) -> dict[str, Any]:
    """Measure the sets of one range of offsets, as far as it was calibrated."""
    sets = bank.card.label_sets
    if sets is None or not bool((chosen := chosen & (rows.offsets <= sets.last)).any()):
        return {}
    offsets, states = rows.offsets[chosen], rows.states[place, chosen]
    groups = [g for g, c in zip(rows.groups, chosen.tolist(), strict=True) if c]
    covered, sizes, _ = set_columns(bank, states, rows.labels[chosen], offsets)
    coverage, size = group_means(np.stack([covered, sizes], axis=1), groups, seed=seed)
    return {
        "coverage": _round(coverage.value),
        "coverage_interval": _interval(coverage.interval),
        "size": _round(size.value),
        "size_interval": _interval(size.interval),
    }


def _round(value: float) -> float:
    return round(float(value), 4)


def _interval(interval: tuple[float, float]) -> Interval:
    return _round(interval[0]), _round(interval[1])
