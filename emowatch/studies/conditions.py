"""Heads of the conditions of paper A, Table 2: which text of which model they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from emowatch.bank.card import BankCard, Evaluation, LayerMetrics
from emowatch.model.loading import LoadedModel
from emowatch.studies.law import check_chance
from emowatch.studies.probing import check_law, measure, options_for, train
from emowatch.studies.setting import Setting
from emowatch.studies.shuffling import shuffled_accuracy
from emowatch.workshop.metrics import Estimate

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

    Raises:
        LawError: if the law of layer 0 does not hold for templated text.
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
    law = check_law(setting, options) if condition == "template" else None
    bank = train(setting, "probes", options)
    evaluation = measure(setting, bank, options)
    if law is not None and law.holds:
        check_chance(evaluation)
    layers = sorted({bank.card.layers[-1], bank.card.primary})
    return Probed(
        condition=condition,
        card=bank.card,
        evaluation=evaluation,
        nulls=shuffled_accuracy(setting, options, layers),
    )
