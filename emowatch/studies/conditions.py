"""Heads of the conditions of paper A, Table 2: which text of which model they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emowatch.bank.card import BankCard, Evaluation, LayerMetrics
from emowatch.model.loading import LoadedModel
from emowatch.studies.layers import SHUFFLES, balanced_accuracy
from emowatch.studies.nulls import SHARE, spread_of
from emowatch.studies.probing import fit_shuffled, measure, options_for, read, train
from emowatch.studies.setting import Setting
from emowatch.workshop.metrics import Estimate
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.preparation import rows_of

Opener = Callable[[], LoadedModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """Heads of one condition, measured."""

    condition: str
    card: BankCard
    evaluation: Evaluation
    nulls: Mapping[int, Estimate]
    """By layer, where heads fitted to shuffled labels lie: those of `last` and `primary`."""

    @property
    def last(self) -> LayerMetrics:
        """The deepest layer that was read."""
        return self.evaluation.layers[-1]

    @property
    def primary(self) -> LayerMetrics:
        """The layer chosen on validation data."""
        return self.evaluation.layers[self.card.layers.index(self.card.primary)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotProbed:
    """A condition that was not measured, and why."""

    condition: str
    why: str


def probe_conditions(setting: Setting, base: Opener | None) -> list[Probed | NotProbed]:
    """Measure heads on templated text, on raw text, and on raw text of the base model.

    The first two train the banks that the study of layers trains. What cannot be measured is
    named.

    Args:
        setting: model and texts.
        base: opens the model before instruction tuning, when the others are done.
    """
    templated: Probed | NotProbed
    if not setting.template:
        templated = NotProbed(condition="template", why="left out by --no-template")
    elif not setting.loaded.tokenizer.chat_template:
        templated = NotProbed(condition="template", why="the tokenizer has no chat template")
    else:
        templated = _probe(setting, "template")
    raw = _probe(setting, "raw")
    before: Probed | NotProbed
    if base is None:
        before = NotProbed(condition="pre-trained", why="name the base model with --base")
    else:
        before = _probe(replace(setting, loaded=base()), "pre-trained")
    return [templated, raw, before]


def _probe(setting: Setting, condition: str) -> Probed:
    options = options_for(setting, template=condition == "template")
    bank = train(setting, "probes", options)
    evaluation = measure(setting, bank, options)
    layers = sorted({bank.card.layers[-1], bank.card.primary})
    return Probed(
        condition=condition,
        card=bank.card,
        evaluation=evaluation,
        nulls=_nulls(setting, options, layers),
    )


def _nulls(setting: Setting, options: TrainOptions, layers: Sequence[int]) -> dict[int, Estimate]:
    """Say where heads of meaningless labels lie: the mean over some orders of the labels, and 95 %
    of a normal distribution of their spread."""
    prepared, activations, _ = read(setting, setting.test, options)
    rows = rows_of(setting.test, prepared, activations, layers)
    found = np.array(
        [
            balanced_accuracy(heads.scores(rows.states, rows.offsets).argmax(-1), rows.labels)
            for heads in fit_shuffled(setting, options, SHUFFLES, layers)
        ]
    )  # [orders, layers]
    spreads = {layer: spread_of(found[:, place], SHARE) for place, layer in enumerate(layers)}
    return {layer: spread for layer, spread in spreads.items() if spread is not None}
