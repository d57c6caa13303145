"""Splitting, balancing and weighting. Works on groups and class indices; sees no text."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from emowatch.errors import CorpusError

Indices: TypeAlias = npt.NDArray[np.int64]
Labels: TypeAlias = npt.NDArray[np.integer]

_HASH_RANGE = 1 << 64


def split_by_group(
    groups: Sequence[str], *, fractions: Mapping[str, float], seed: int
) -> dict[str, Indices]:
    """Return the indices of each split, ascending; no group is in two splits.

    A group's side follows from a hash of the seed and its name, so that it does not depend on
    the order of the rows, nor, but for groups at a border, on the other groups. ``fractions``
    (they sum to 1) are fractions of groups; the fractions of rows come near when groups are
    small. Where chance leaves a split empty, it gets the group next to its border.

    Raises CorpusError when a fraction is not positive, when they do not sum to 1, and when there
    are fewer groups than splits.
    """
    if not fractions or not all(0 < part <= 1 for part in fractions.values()):
        raise CorpusError(
            f"The fractions of a split must each be above 0 and at most 1. Got {dict(fractions)}."
        )
    if not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise CorpusError(
            f"The fractions of a split must sum to 1. Got {dict(fractions)}, "
            f"which sum to {sum(fractions.values()):g}."
        )
    ordered = sorted({group: _place(seed, group) for group in groups}.items(), key=lambda g: g[1])
    if len(ordered) < len(fractions):
        raise CorpusError(
            f"Could not split into {', '.join(fractions)} because the {len(groups):,} examples "
            f"form only {len(ordered)} groups, and a group is never cut. Add rows, or choose "
            "another --group-column."
        )
    borders = _borders([place for _, place in ordered], list(fractions.values()))
    split_of: dict[str, int] = {}
    for index, (start, end) in enumerate(zip([0, *borders], [*borders, len(ordered)], strict=True)):
        split_of.update((group, index) for group, _ in ordered[start:end])
    sides = np.array([split_of[group] for group in groups], dtype=np.int64)  # [n_examples]
    return {name: np.flatnonzero(sides == index) for index, name in enumerate(fractions)}


def _place(seed: int, group: str) -> int:
    key = f"{seed}:{group}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"split").digest())


def _borders(places: Sequence[int], fractions: Sequence[float]) -> list[int]:
    """Return where to cut the ordered groups so that no part is empty."""
    ends = np.cumsum(fractions[:-1]) * _HASH_RANGE
    borders = [int(border) for border in np.searchsorted(np.array(places, dtype=float), ends)]
    for index, border in enumerate(borders):
        borders[index] = max(border, borders[index - 1] + 1 if index else 1)
    for index in reversed(range(len(borders))):
        following = borders[index + 1] if index + 1 < len(borders) else len(places)
        borders[index] = min(borders[index], following - 1)
    return borders


def balance(labels: Labels, *, neutral: int | None, seed: int) -> Indices:
    """Return indices under which all classes present have as many examples as each other.

    As the probe of arXiv 2510.04064 is trained: each class is brought to the size of the largest
    class other than ``neutral``. Smaller classes are repeated, whole copies first and then a
    random remainder without replacement; a larger neutral class is sampled without replacement.
    The order is random. Fit this on the training side of a split only: it makes copies.

    Raises CorpusError when there is no class but neutral.
    """
    rng = np.random.default_rng(seed)
    members = _members(labels)
    emotions = [len(rows) for label, rows in members.items() if label != neutral]
    if not emotions:
        raise CorpusError(
            f"Could not balance {len(labels):,} labels because none is of a class other than "
            "neutral. Add rows with another label."
        )
    size = max(emotions)
    return rng.permutation(np.concatenate([_resize(r, size, rng) for r in members.values()]))


def undersample(labels: Labels, *, seed: int) -> Indices:
    """Return ascending indices that keep as many of each class present as the smallest has.

    Rows are chosen at random without replacement. Raises CorpusError when there are no labels.
    """
    rng = np.random.default_rng(seed)
    members = _members(labels)
    size = min(map(len, members.values()))
    return np.sort(np.concatenate([_resize(rows, size, rng) for rows in members.values()]))


def class_weights(labels: Labels, n_classes: int) -> npt.NDArray[np.float32]:
    """Return one weight for each class: inverse frequency, with mean 1 over the examples.

    A class without examples has weight 0. Raises CorpusError when there are no labels, or when
    one is not an index below ``n_classes``.
    """
    members = _members(labels)
    if min(members) < 0 or max(members) >= n_classes:
        raise CorpusError(
            f"The labels must be between 0 and {n_classes - 1} for {n_classes} classes. "
            f"Got {min(members)} to {max(members)}."
        )
    weights = np.zeros(n_classes, dtype=np.float32)
    for label, rows in members.items():
        weights[label] = len(labels) / (len(members) * len(rows))
    return weights


def _members(labels: Labels) -> dict[int, Indices]:
    """Return the rows of each class present."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise CorpusError(
            "The labels must be a one-dimensional array of at least one class index. "
            f"Got shape {labels.shape} of {labels.dtype}."
        )
    return {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}


def _resize(rows: Indices, size: int, rng: np.random.Generator) -> Indices:
    copies, remainder = divmod(size, len(rows))
    return np.concatenate([*[rows] * copies, rng.choice(rows, remainder, replace=False)])
