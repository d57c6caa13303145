"""What is legible in the states, layer by layer: emotions, first words and appraisals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import KFold, train_test_split
from torch import Tensor

from emowatch.bank.heads import Heads
from emowatch.errors import StudyError
from emowatch.studies.law import LawError
from emowatch.studies.notebook.accounts import Accounts, Doubles, Ints
from emowatch.studies.notebook.ridge import fit_ridge
from emowatch.studies.notebook.states import groups_of_layers
from emowatch.text import clean_line
from emowatch.workshop.activations import Activations
from emowatch.workshop.preparation import Report
from emowatch.workshop.presets import FitOptions
from emowatch.workshop.regression import fit_logistic
from emowatch.workshop.training import HeadTrainer

TEST = 0.2
ALPHA = 5.0
"""Of the ridge regression."""
FOLDS = 5
"""Of the training texts, among which the primary layer is chosen."""
HIDDEN = 32
SHUFFLES = 10
"""Orders of the emotions that probes are fitted to, to see where meaningless ones lie."""
WORD = re.compile(r"\w+")
FEWEST = 10
"""Training texts with a first word, below which it is no class of the control task."""


@dataclass(frozen=True, slots=True)
class Split:
    """Which texts are learned from and which are measured on, ascending."""

    train: Ints
    test: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The control task of the paper: to tell the first word of a text."""

    words: tuple[str, ...]
    train: Ints
    """Texts of the training side with such a word, and the word's number for each."""
    train_words: Ints
    test: Ints
    test_words: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Legible:
    """Predictions for the test texts, and the readings they come from.

    All but `right` are of the last token.
    """

    layers: tuple[int, ...]
    right: Doubles
    """``[layers, positions, test texts]``: 1 where the emotion is told."""
    shuffled: Doubles
    """``[layers, orders]``: accuracy of probes fitted to permuted emotions."""
    mlp: Doubles
    """``[layers, test texts]``: of the MLP control."""
    folds: Doubles
    """``[layers]``: accuracy within the training texts."""
    control: Control | None
    control_right: Doubles
    """``[layers, test texts of the control task]``."""
    weight: Tensor
    """``[layers, d_model, emotions]`` of the probes."""
    bias: Tensor
    appraisals: Doubles
    """``[layers, test texts, 20]``, predicted."""
    appraisals_shuffled: Doubles
    """``[layers, orders, test texts, 20]``, predicted by ridges of permuted ratings."""
    ridge_weight: Tensor
    """``[layers, d_model, 20]``."""
    ridge_bias: Tensor
    unsolved: int
    """Fits that did not reach their tolerance."""

    @property
    def primary(self) -> int:
        """Place of the layer that is best within the training texts; of equals the first."""
        return int(self.folds.argmax())


def split(accounts: Accounts, seed: int) -> Split:
    """Hold a fifth of the texts out at random, as the notebook does, whatever their emotion.

    Raises:
        StudyError: if an emotion is missing among those that are learned from.
    """
    train, test = train_test_split(np.arange(len(accounts)), test_size=TEST, random_state=seed)
    found = np.bincount(accounts.emotions[train], minlength=len(accounts.labels))
    if not found.all():
        name = clean_line(accounts.labels[int(found.argmin())], 40)
        raise StudyError(
            f"Could not split {len(accounts):,} texts: none of those to learn from is of "
            f"{name!r}. Give more texts (--limit), or another --seed."
        )
    return Split(np.sort(train), np.sort(test))


def check_tells_nothing(legible: Legible, emotions: Ints) -> None:
    """Hold probes of states that are all equal to one answer for every text.

    Args:
        legible: what probes said; its first layer is 0.
        emotions: of the test texts.

    Raises:
        LawError: if some texts are told and others of the same emotion are not, or two emotions.
    """
    right = legible.right[0, -1].astype(bool)
    told = np.unique(emotions[right])
    if len(told) > 1 or not right[np.isin(emotions, told)].all():
        raise LawError(
            "Could not trust the probes: at layer 0 the last token has one state in all texts, yet "
            "a probe gives them different emotions. Labels or rows are mixed up; this is a mistake "
            "of emowatch, please report it."
        )


def first_words(texts: Sequence[str], sides: Split) -> Control | None:
    """Make the control task of the first words that are common enough.

    Returns:
        `None` where fewer than three are.
    """
    found = [WORD.search(text.casefold()) for text in texts]
    first = np.array([match[0] if match else "" for match in found])
    counts = Counter(first[sides.train].tolist())
    held = set(first[sides.test].tolist())
    words = tuple(w for w, n in counts.most_common() if n >= FEWEST and w in held and w)
    if len(words) < 3:
        return None
    parts: list[Any] = []
    for side in (sides.train, sides.test):
        mine = side[np.isin(first[side], words)]
        parts += [mine, np.array([words.index(word) for word in first[mine]])]
    return Control(
        words=words, train=parts[0], train_words=parts[1], test=parts[2], test_words=parts[3]
    )


def read_probes(
    accounts: Accounts, activations: Activations, sides: Split, *, seed: int, report: Report
) -> Legible:
    """Fit everything at every layer, some layers at a time."""
    parts: list[dict[str, Any]] = []
    control = first_words(accounts.texts, sides)
    done = 0
    for layers, states in groups_of_layers(activations):
        found = _read(accounts, states, sides, control, seed)
        parts.append(found)
        done += len(layers)
        report("fitting probes", done, len(activations.layers))
    joined: dict[str, Any] = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        is_tensor = isinstance(values[0], Tensor)
        joined[name] = torch.cat(values) if is_tensor else np.concatenate(values)
    unsolved = int(joined.pop("unsolved").sum())
    return Legible(layers=activations.layers, control=control, unsolved=unsolved, **joined)


def _read(
    accounts: Accounts, states: Tensor, sides: Split, control: Control | None, seed: int
) -> dict[str, Any]:
    """Fit some layers; `states` are ``[layers, positions, texts, d_model]``."""
    n_layers, n_positions = states.shape[:2]
    n_labels = len(accounts.labels)
    emotions = torch.from_numpy(accounts.emotions)
    train, test = torch.from_numpy(sides.train), torch.from_numpy(sides.test)
    learned, held = emotions[train], emotions[test]
    stacks = states.flatten(0, 1)
    probes = fit_logistic(stacks[:, train], learned, n_labels)
    right = (probes.predict(stacks[:, test]) == held).double().unflatten(0, (n_layers, n_positions))
    last = states[:, -1].contiguous()  # [layers, texts, d_model]
    ratings = torch.from_numpy(accounts.appraisals)
    ridge = fit_ridge(last[:, train], ratings[train], ALPHA)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(learned), generator=generator) for _ in range(SHUFFLES)]
    mixed = torch.cat([ratings[train][order] for order in orders], 1)  # [texts, orders · 20]
    null = fit_ridge(last[:, train], mixed, ALPHA).predict(last[:, test])
    known = torch.zeros(n_layers, 0, dtype=torch.double)
    if control is not None:
        words = torch.from_numpy(control.train_words)
        fitted = fit_logistic(last[:, torch.from_numpy(control.train)], words, len(control.words))
        told = fitted.predict(last[:, torch.from_numpy(control.test)])
        known = (told == torch.from_numpy(control.test_words)).double()
    of_last = slice(n_positions - 1, None, n_positions)
    return {
        "right": right.numpy(),
        "shuffled": _null(last, emotions, train, test, n_labels, seed),
        "mlp": _mlp(last, emotions, train, test, n_labels, seed),
        "folds": _folds(last[:, train], learned, n_labels, seed),
        "control_right": known.numpy(),
        "weight": probes.weight[of_last],
        "bias": probes.bias[of_last],
        "appraisals": ridge.predict(last[:, test]).numpy(),
        "appraisals_shuffled": null.unflatten(-1, (SHUFFLES, -1)).transpose(1, 2).numpy(),
        "ridge_weight": ridge.weight.float(),
        "ridge_bias": ridge.bias.float(),
        "unsolved": probes.unsolved.numpy(),
    }


def _null(
    states: Tensor, emotions: Tensor, train: Tensor, test: Tensor, n_labels: int, seed: int
) -> Doubles:
    """Measure probes of permuted emotions ``[layers, orders]``."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(SHUFFLES):
        mixed = emotions[train[torch.randperm(len(train), generator=generator)]]
        told = fit_logistic(states[:, train], mixed, n_labels).predict(states[:, test])
        found.append((told == emotions[test]).double().mean(1))
    accuracy: Doubles = torch.stack(found, 1).numpy()
    return accuracy


def _mlp(
    states: Tensor, emotions: Tensor, train: Tensor, test: Tensor, n_labels: int, seed: int
) -> Doubles:
    """Fit the control with a hidden layer; a tenth of the training texts stops it early."""
    order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))]
    cut = max(1, len(order) // 10)
    trainer = HeadTrainer("mlp", FitOptions(hidden=HIDDEN, seed=seed))
    trainer.fit(states, emotions, order[cut:], order[:cut], n_labels=n_labels)
    heads = Heads("mlp", trainer.tensors_, torch.ones(len(states), 1), (0,))
    right: Doubles = (
        (heads.head_logits(states[:, test], 0).argmax(-1) == emotions[test]).double().numpy()
    )
    return right


def _folds(states: Tensor, emotions: Tensor, n_labels: int, seed: int) -> Doubles:
    """Measure accuracy ``[layers]`` within the training texts, to choose a layer by."""
    hits = torch.zeros(len(states), dtype=torch.double)
    for inner, outer in KFold(FOLDS, shuffle=True, random_state=seed).split(
        np.arange(len(emotions))
    ):
        learned, held = torch.from_numpy(inner), torch.from_numpy(outer)
        found = fit_logistic(states[:, learned], emotions[learned], n_labels)
        hits += (found.predict(states[:, held]) == emotions[held]).double().sum(1)
    accuracy: Doubles = (hits / len(emotions)).numpy()
    return accuracy
