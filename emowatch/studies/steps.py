"""The studies that `emowatch study all` runs, and what each has to do."""

from __future__ import annotations

from dataclasses import dataclass

from emowatch.errors import UsageError
from emowatch.model.blocks import find_blocks, resolve_layers
from emowatch.studies.estimating import Work, tokens_of
from emowatch.studies.geometry import study_geometry
from emowatch.studies.layers import SHUFFLES, study_layers
from emowatch.studies.persistence import PersistenceOptions, study_persistence
from emowatch.studies.plan import Step
from emowatch.studies.setting import Setting
from emowatch.workshop.replies import BATCH_ROWS, ROUND

EPOCHS = 12
"""Of a fit that stops early, usually."""
LONG = 0.1
"""Share of replies that are longer than `ROUND` tokens, usually."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the studies of a plan are told beside their setting."""

    max_new_tokens: int = 256
    """Longest reply."""
    only: tuple[str, ...] = ()
    """Studies to run; empty: all."""


def steps_for(options: PlanOptions) -> tuple[Step, ...]:
    """List the studies in order.

    Raises:
        UsageError: for a name that is none of them.
    """
    persistence = PersistenceOptions(max_new_tokens=options.max_new_tokens)
    steps = (
        Step(name="layers", run=study_layers, work=_layers),
        Step(name="geometry", run=study_geometry, work=lambda setting: Work()),
        Step(
            name="persistence",
            run=lambda setting: study_persistence(setting, persistence),
            work=lambda setting: _persistence(setting, persistence),
        ),
    )
    unknown = [name for name in options.only if name not in {step.name for step in steps}]
    if unknown:
        raise UsageError(
            f"There is no study {', '.join(map(repr, unknown))}: choose among "
            f"{', '.join(step.name for step in steps)}."
        )
    return tuple(step for step in steps if not options.only or step.name in options.only)


def _layers(setting: Setting) -> Work:
    """Read both sides once; fit the heads, those of the control and of shuffled labels."""
    learned, held = tokens_of(setting)
    fits = _layer_count(setting) * EPOCHS * len(setting.train) * (2 + SHUFFLES)
    return Work(tokens=learned + held, rows=fits)


def _persistence(setting: Setting, options: PersistenceOptions) -> Work:
    """Write the replies, read them with their messages and alone, and fit to their states."""
    texts = len(setting.train) + len(setting.test)
    short, rest = min(ROUND, options.max_new_tokens), max(0, options.max_new_tokens - ROUND)
    steps = texts / BATCH_ROWS * (short + LONG * rest)
    learned, held = tokens_of(setting)
    spoken = texts * short / 2
    states = len(setting.train) * options.states_per_reply
    fits = EPOCHS * states * (_layer_count(setting) + 1 + options.shuffles)
    return Work(tokens=2 * (learned + held + spoken), steps=steps, rows=fits)


def _layer_count(setting: Setting) -> int:
    blocks = find_blocks(setting.loaded.model, setting.loaded.blocks)
    return len(resolve_layers(setting.layers, blocks.n_layers))
