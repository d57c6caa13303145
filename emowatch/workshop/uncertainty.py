"""Calibrate label sets and abstention on states that no head was fitted to.

Works on arrays; knows nothing of texts or files. Groups are exchangeable, rows of one group are
not: every group weighs the same, however many rows it has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emowatch.bank.card import Evaluation
from emowatch.bank.distance import DISTANCE_SHAPES, StateDistance
from emowatch.bank.probe_bank import ProbeBank
from emowatch.bank.uncertainty import Uncertainty
from emowatch.errors import TrainingError
from emowatch.text import clean_line
from emowatch.workshop.scaling import standardisation

LEVEL = 0.9
"""Share of texts whose true label the sets hold, unless told otherwise."""
KEEPS = 0.95
"""Share of states like those of the calibration from which a bank does not abstain."""
MIN_GROUPS = 100
"""Groups that a bin needs for thresholds of its own, and a bank for any: with fewer, what the sets
really hold may be 6 points off what they promise."""
MIN_OF_LABEL = 10
"""Groups of each label that thresholds need: classes count equally, so the fewest decide how near
sets come to what they promise."""
FACTORS = 64
"""Directions of the distance at most; others count as if states varied equally along them."""
LEAST_NOISE = 0.01
"""Variance along those others at least, in units of the states' own; fewer rows than dimensions
would make it 0."""
LEAST_LIMIT = 0.5
"""In units of standard deviations; states that vary at all lie farther from their mean."""
LEAST_SPREAD, LEAST_SHARE = 1e-2, 1e-5
"""Standard deviation of a dimension at least, as a share of its mean and of the states' RMS.
Where all states are the same, as at offset 0 after the same message, only rounding differs."""
DECIMALS = 6
"""Thresholds are rounded down to these, coarser than the scores of a trace."""
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """States of the primary layer with what is known of each row."""

    states: Tensor
    """``[rows, d_model]``."""
    labels: Tensor
    """``[rows]``."""
    offsets: Tensor
    """``[rows]``."""
    groups: Sequence[int]
    """``[rows]``."""


def calibrate(
    bank: ProbeBank,
    held: HeldOut,
    reference: HeldOut | None,
    *,
    source: str,
    sha256: str,
    split: str,
    level: float = LEVEL,
    keeps: float = KEEPS,
) -> ProbeBank:
    """Give `bank` label sets and, with a `reference`, the distance that it abstains by.

    Args:
        bank: the bank; its heads and temperatures stay as they are.
        held: rows that neither heads nor reference have seen; thresholds come from these.
        reference: rows that the states' mean and spread come from; `None` for no abstention.
        source: what the rows are.
        sha256: of their file.
        split: which of them served for what, in words.
        level: share of groups whose true label the sets are to hold.
        keeps: share of groups' states from which the bank is not to abstain.

    Raises:
        TrainingError: for fewer than `MIN_GROUPS` groups, or `MIN_OF_LABEL` of some label.
    """
    n_groups = len(set(held.groups))
    if n_groups < MIN_GROUPS:
        raise TrainingError(
            f"Could not calibrate label sets on {n_groups} groups of texts: {MIN_GROUPS} are "
            "needed at least. Give more texts."
        )
    bins = bank.card.bins
    of_bin = _bins_of(held.offsets, bins)
    groups = np.unique(held.groups, return_inverse=True)[1].astype(np.int64)
    labels = held.labels.numpy()
    by_label = [
        groups_of_labels(groups[of_bin == number], labels[of_bin == number], bank.card.labels)
        for number in range(len(bins))
    ]
    check_labels(groups_of_labels(groups, labels, bank.card.labels))
    counts = tuple(len(np.unique(groups[of_bin == number])) for number in range(len(bins)))
    pooled = tuple(
        count < MIN_GROUPS or min(of_labels.values()) < MIN_OF_LABEL
        for count, of_labels in zip(counts, by_label, strict=True)
    )

    def by_bin(rule: Callable[[NDArray[np.bool_]], float]) -> list[float]:
        of_all = rule(np.ones(len(of_bin), dtype=bool))
        return [
            of_all if shared else rule(of_bin == number) for number, shared in enumerate(pooled)
        ]

    heads = bank.heads_at((bank.card.primary,))
    scores = heads.scores(held.states[None], held.offsets)[0].double().numpy()
    true = scores[np.arange(len(labels)), labels]
    uncertainty = Uncertainty(
        source=source,
        sha256=sha256,
        split=split,
        level=level,
        thresholds=tuple(
            by_bin(lambda r: conformal_threshold(true[r], labels[r], groups[r], level))
        ),
        groups=counts,
        pooled=pooled,
        last=int(held.offsets.max()),
    )
    tensors = {k: v for k, v in bank.tensors.items() if k not in DISTANCE_SHAPES}
    if reference is not None:
        found = fit_distance(reference.states, reference.offsets, reference.groups, bins)
        distances = StateDistance(found, bins).of(held.states, held.offsets).double().numpy()
        limits = by_bin(lambda r: distance_limit(distances[r], groups[r], keeps))
        # States that are all alike lie at the limit, and are not to pass it by rounding.
        found["state_scale"] /= 1.0001 * torch.tensor(limits, dtype=torch.float32)[:, None]
        tensors |= found
        factors = found["state_factors"].shape[1]
        uncertainty = replace(uncertainty, keeps=keeps, factors=factors)
    evaluation = _without_sets(bank.card.evaluation)
    card = replace(bank.card, uncertainty=uncertainty, evaluation=evaluation)
    return ProbeBank(card, tensors)


def are_enough(groups: Sequence[int], labels: Sequence[int], n_labels: int) -> bool:
    """Whether rows of these groups and labels are enough for thresholds."""
    of_labels = Counter(label for _, label in set(zip(groups, labels, strict=True)))
    return len(set(groups)) >= MIN_GROUPS and all(
        of_labels[label] >= MIN_OF_LABEL for label in range(n_labels)
    )


def groups_of_labels(groups: Ints, labels: Ints, names: Sequence[str]) -> dict[str, int]:
    """Count the groups that have rows of each label."""
    return {name: len(np.unique(groups[labels == n])) for n, name in enumerate(names)}


def check_labels(counts: Mapping[str, int], share: float = 1.0) -> None:
    """Refuse labels so rare that one text more would move every set.

    Args:
        counts: groups of texts of each label.
        share: of the texts that was given, from which these are.

    Raises:
        TrainingError: naming those labels.
    """
    rare = {name: count for name, count in counts.items() if count < MIN_OF_LABEL}
    if rare:
        told = ", ".join(f"{clean_line(name)} {count}" for name, count in rare.items())
        where = f" among the {share:.0%} that thresholds come from" if share < 1 else ""
        raise TrainingError(
            f"Could not calibrate label sets: {MIN_OF_LABEL} groups of texts of each label are "
            f"needed at least{where}, and there are only {told}. Give more of these, or raise "
            "--limit."
        )


def _without_sets(evaluation: Evaluation | None) -> Evaluation | None:
    """Drop what was measured of earlier sets; all else is as it was."""
    if evaluation is None:
        return None
    parts = tuple(
        replace(part, coverage=None, coverage_interval=None, size=None, size_interval=None)
        for part in evaluation.by_offset
    )
    return replace(evaluation, sets=None, by_offset=parts)


def conformal_threshold(true: Doubles, labels: Ints, groups: Ints, level: float) -> float:
    """Find the score that the true label of a new group reaches with probability `level`.

    Split conformal with the score of the true label as conformity, every group weighing the same
    (hierarchical conformal prediction: Lee, Barber & Willett 2023, arXiv 2306.06342), classes
    counting equally (weights for label shift: Podkopaev & Ramdas 2021, arXiv 2103.03323).

    Args:
        true: score of the true label ``[rows]``.
        labels: ``[rows]``.
        groups: ``[rows]``.
        level: between 0 and 1.

    Returns:
        The threshold, rounded down; 0 where there are too few groups for any.
    """
    pair = np.unique(np.stack([groups, labels]), axis=1, return_inverse=True)[1].ravel()
    rows_of_pair = np.bincount(pair)
    label_of_pair = np.empty(len(rows_of_pair), dtype=np.int64)
    label_of_pair[pair] = labels
    pairs_of_label = np.bincount(label_of_pair)
    weights = 1.0 / (rows_of_pair[pair] * pairs_of_label[labels])
    new = 1.0 / pairs_of_label[pairs_of_label > 0].min()  # the group to come, at its heaviest
    order = np.argsort(-true, kind="stable")
    reached = np.cumsum(weights[order])
    place = int(np.searchsorted(reached, level * (round(reached[-1]) + new) - 1e-9))
    if place == len(order):
        return 0.0
    unit = 10.0**DECIMALS
    return math.floor(float(true[order[place]]) * unit) / unit


def distance_limit(distances: Doubles, groups: Ints, keeps: float) -> float:
    """Find the distance that the states of a new group do not pass with probability `keeps`.

    The highest of all where there are too few groups for that, and at least `LEAST_LIMIT`.
    """
    group = np.unique(groups, return_inverse=True)[1].ravel()
    counts = np.bincount(group)
    order = np.argsort(distances, kind="stable")
    reached = np.cumsum(1.0 / (counts[group] * len(counts))[order])
    place = int(np.searchsorted(reached, keeps * (1 + 1 / len(counts)) - 1e-9))
    return max(float(distances[order[min(place, len(order) - 1)]]), LEAST_LIMIT)


def fit_distance(
    states: Tensor, offsets: Tensor, groups: Sequence[int], bins: Sequence[int]
) -> dict[str, Tensor]:
    """Fit the Gaussian of a `StateDistance`: mean and scale of each bin, factors of all.

    A bin of fewer groups than `MIN_GROUPS` takes those of all rows.

    Args:
        states: ``[rows, d_model]``.
        offsets: ``[rows]``.
        groups: ``[rows]``.
        bins: first offset of each bin.

    Returns:
        Tensors as a bank stores them, in units of standard deviations and not of a limit.
    """
    of_bin = torch.from_numpy(_bins_of(offsets, bins))
    means, scales = [], []
    for number in range(len(bins)):
        chosen = of_bin == number
        if len({group for group, mine in zip(groups, chosen.tolist(), strict=True) if mine}) < (
            MIN_GROUPS
        ):
            chosen = torch.ones_like(chosen)
        mean, scale = standardisation(states[None], chosen.float() / chosen.sum())
        size = states[chosen].square().mean().sqrt()
        least = LEAST_SPREAD * mean.abs() + LEAST_SHARE * size
        means.append(mean[0, 0])
        scales.append(scale.minimum(1 / least)[0, 0])
    mean, scale = torch.stack(means), torch.stack(scales)  # [bins, d_model]
    centred = (states - mean[of_bin]) * scale[of_bin]
    varying = max(1, int((scale > 0).any(0).sum()))
    count = max(1, min(FACTORS, varying // 4, len(states) // 4))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # the host's alone; that of a GPU is not forked
        _, singular, directions = torch.svd_lowrank(
            centred, q=min(2 * count, *centred.shape), niter=8
        )
    variances = singular[:count].square() / len(states)
    total = float(centred.square().sum() / len(states))
    noise = max(LEAST_NOISE, (total - float(variances.sum())) / max(1, varying - count))
    shrunk = (1 - noise / variances.clamp(min=noise)).sqrt()
    return {
        "state_mean": mean,
        "state_scale": scale / math.sqrt(noise),
        "state_factors": (directions[:, :count] * shrunk).contiguous(),
    }


def _bins_of(offsets: Tensor, bins: Sequence[int]) -> Ints:
    """Number of the bin of each row."""
    found: Ints = torch.bucketize(offsets, torch.tensor(bins[1:]), right=True).numpy()
    return found
