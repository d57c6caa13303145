"""Measure label sets and abstention: coverage, size, and how well unlike states are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emowatch.bank.probe_bank import ProbeBank
from emowatch.bank.uncertainty import Detection, SetMetrics
from emowatch.labels import LabelSets
from emowatch.workshop.metrics import Estimate, auroc, group_means

Doubles = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def memberships(sets: LabelSets, scores: Doubles, offsets: Tensor) -> Booleans:
    """Tell which labels are in the set of each row, ``[rows, labels]``, as `LabelSets.of` does."""
    place = torch.bucketize(offsets, torch.tensor(sets.bins[1:]), right=True).numpy()
    inside: Booleans = scores >= np.array(sets.thresholds)[place][:, None]
    inside[np.arange(len(scores)), scores.argmax(1)] = True
    return inside


def measure_sets(
    bank: ProbeBank,
    states: Tensor,
    labels: Tensor,
    offsets: Tensor,
    groups: Sequence[int],
    unlike: Mapping[str, tuple[Tensor, Tensor, Sequence[int]]],
    *,
    seed: int = 0,
) -> SetMetrics | None:
    """Measure the sets of a bank's primary layer on a test set; `None` where it has none.

    Args:
        bank: the bank.
        states: ``[rows, d_model]`` at the primary layer.
        labels: ``[rows]``.
        offsets: ``[rows]``.
        groups: ``[rows]``.
        unlike: by kind, states, offsets and groups of texts that are unlike the test set.
        seed: of the bootstrap.
    """
    sets = bank.card.label_sets
    if sets is None:
        return None
    calibrated = offsets <= sets.last
    covered, sizes, _ = set_columns(bank, states, labels, offsets)
    true = labels.numpy()
    kept = calibrated.numpy()
    rows = np.stack([covered, sizes], axis=1)[kept]
    group = np.asarray(groups)
    coverage, size = group_means(rows, group[kept], seed=seed)
    by_label = {
        name: group_means(covered[chosen][:, None], group[chosen], seed=seed)[0]
        for number, name in enumerate(bank.card.labels)
        if (chosen := kept & (true == number)).any()
    }
    abstention: Estimate | None = None
    detection: tuple[Detection, ...] = ()
    if bank.distance is not None:
        distances = bank.distance.of(states, offsets).double().numpy()
        abstention = group_means((distances > 1)[:, None].astype(float), group, seed=seed)[0]
        detection = tuple(
            _detection(bank, kind, *rows, distances, group, seed) for kind, rows in unlike.items()
        )
    return SetMetrics(
        level=sets.level,
        coverage=_round(coverage.value),
        coverage_interval=_interval(coverage),
        size=_round(size.value),
        size_interval=_interval(size),
        chance_size=_round(sets.level * len(bank.card.labels)),
        coverage_by_label={name: _round(one.value) for name, one in by_label.items()},
        coverage_by_label_interval={name: _interval(one) for name, one in by_label.items()},
        abstention=None if abstention is None else _round(abstention.value),
        abstention_interval=None if abstention is None else _interval(abstention),
        detection=detection,
    )


def set_columns(
    bank: ProbeBank, states: Tensor, labels: Tensor, offsets: Tensor
) -> tuple[Doubles, Doubles, Doubles]:
    """Tell of each row whether its set holds the true label and how many labels it holds.

    Returns:
        Both ``[rows]``, and the scores ``[rows, labels]``. States are those of the primary layer.
    """
    sets = bank.card.label_sets
    assert sets is not None
    heads = bank.heads_at((bank.card.primary,))
    scores = heads.scores(states[None], offsets)[0].double().numpy()
    inside = memberships(sets, scores, offsets)
    covered = inside[np.arange(len(inside)), labels.numpy()]
    return covered.astype(float), inside.sum(1).astype(float), scores


def _detection(
    bank: ProbeBank,
    kind: str,
    states: Tensor,
    offsets: Tensor,
    texts: Sequence[int],
    like: Doubles,
    groups: NDArray[np.int64],
    seed: int,
) -> Detection:
    assert bank.distance is not None
    distances = bank.distance.of(states, offsets).double().numpy()
    group = np.asarray(texts)
    (share,) = group_means((distances > 1)[:, None].astype(float), group, seed=seed)
    area = auroc(distances, group, like, groups, seed=seed)
    return Detection(
        kind=kind,
        n=len(set(texts)),
        abstention=_round(share.value),
        abstention_interval=_interval(share),
        auroc=_round(area.value),
        auroc_interval=_interval(area),
    )


def _round(value: float) -> float:
    return round(float(value), 4)


def _interval(found: Estimate) -> tuple[float, float]:
    return _round(found.low), _round(found.high)
