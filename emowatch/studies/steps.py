"""The studies that `emowatch study all` runs, and what each has to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from emowatch.errors import UsageError
from emowatch.model.blocks import find_blocks, resolve_layers
from emowatch.studies.asking import ANSWER_TOKENS
from emowatch.studies.classification import study_classification
from emowatch.studies.conditions import Opener
from emowatch.studies.estimating import Work, tokens_of
from emowatch.studies.expression import SYSTEM_PROMPTS, study_expression
from emowatch.studies.findings import Findings
from emowatch.studies.geometry import study_geometry
from emowatch.studies.judges import JudgeSpec
from emowatch.studies.layers import study_layers
from emowatch.studies.notebook.accounts import Accounts
from emowatch.studies.notebook.study import NotebookOptions, study_notebook
from emowatch.studies.persistence import PersistenceOptions, study_persistence
from emowatch.studies.plan import Step
from emowatch.studies.setting import Setting
from emowatch.studies.shuffling import SHUFFLES
from emowatch.workshop.building.prompting import PromptTemplate
from emowatch.workshop.replies import BATCH_ROWS, ROUND

EPOCHS = 12
"""Of a fit that stops early, usually."""
LONG = 0.1
"""Share of replies that are longer than `ROUND` tokens, usually."""


LETTERS = 4
"""In a token, usually."""
QUESTION = 80
"""Letters of the notebook's question around each text."""
PUSHES = 40
"""Forwards of one token for each pushed text and layer, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the studies of a plan are told beside their setting."""

    max_new_tokens: int = 512
    """Longest reply."""
    question: PromptTemplate = field(default_factory=lambda: PromptTemplate.built_in("emotion"))
    """How a model is asked for an emotion."""
    answer_tokens: int = ANSWER_TOKENS
    """Longest answer to that."""
    thinks: bool = False
    """Whether a model that can think before it answers or replies does so."""
    base: Opener | None = None
    """Opens the model before instruction tuning."""
    judge: JudgeSpec = field(default_factory=lambda: JudgeSpec(kind="classifier"))
    """Who judges replies."""
    control: bool = True
    """Whether the study of layers has a control task."""
    accounts: Accounts | None = None
    """crowd-enVENT, for the notebook study, which is left out without it."""
    only: tuple[str, ...] = ()
    """Studies to run; empty: all."""


def steps_for(options: PlanOptions) -> tuple[Step, ...]:
    """List the studies in order.

    Raises:
        UsageError: for a name that is none of them.
    """
    persistence = PersistenceOptions(max_new_tokens=options.max_new_tokens, thinks=options.thinks)
    alone = bool(options.only) and not {"classification", "layers"} & set(options.only)
    steps: tuple[Step, ...] = (
        Step(
            name="classification",
            run=lambda setting: study_classification(
                setting,
                options.question,
                base=options.base,
                most=options.answer_tokens,
                thinks=options.thinks,
            ),
            work=lambda setting: _classification(setting, options),
        ),
        Step(
            name="layers",
            run=lambda setting: study_layers(setting, control=options.control),
            work=_layers,
        ),
        Step(name="geometry", run=study_geometry, work=_probes if alone else _nothing),
        Step(
            name="expression",
            run=lambda setting: study_expression(
                setting,
                options.judge.open(setting, options.question),
                most=options.max_new_tokens,
                thinks=options.thinks,
            ),
            work=lambda setting: _expression(setting, options.max_new_tokens),
        ),
        Step(
            name="persistence",
            run=lambda setting: study_persistence(setting, persistence),
            work=lambda setting: _persistence(setting, persistence),
        ),
    )
    if (accounts := options.accounts) is not None:
        steps += (
            Step(
                name="notebook",
                run=lambda setting: _run_notebook(setting, accounts),
                work=lambda setting: _notebook(setting, accounts),
            ),
        )
    if "notebook" in options.only and accounts is None:
        raise UsageError(
            "Could not run the study notebook: it reads crowd-enVENT. Name that file with --envent."
        )
    unknown = [name for name in options.only if name not in {step.name for step in steps}]
    if unknown:
        raise UsageError(
            f"There is no study {', '.join(map(repr, unknown))}: choose among "
            f"{', '.join(step.name for step in steps)}."
        )
    return tuple(step for step in steps if not options.only or step.name in options.only)


def _classification(setting: Setting, options: PlanOptions) -> Work:
    """Ask about the test texts; read both sides with and without the template, and of a base
    model; fit the heads, those of shuffled labels at two layers."""
    learned, held = tokens_of(setting)
    conditions = 2 if options.base is None else 3
    fits = EPOCHS * len(setting.train) * (_layer_count(setting) + 2 * SHUFFLES)
    return Work(
        tokens=conditions * (learned + held),
        steps=len(setting.test) / BATCH_ROWS * options.answer_tokens,
        rows=conditions * fits,
    )


def _expression(setting: Setting, most: int) -> Work:
    """Write replies under each system prompt."""
    texts = len(setting.test) * len(SYSTEM_PROMPTS)
    return Work(steps=texts / BATCH_ROWS * _steps_of_replies(most))


def _steps_of_replies(most: int) -> float:
    """Say how many forwards a batch of replies takes, with the share of long ones after it."""
    return min(ROUND, most) + LONG * max(0, most - ROUND)


def _probes(setting: Setting) -> Work:
    """Read both sides and fit heads once."""
    learned, held = tokens_of(setting)
    return Work(tokens=learned + held, rows=_layer_count(setting) * EPOCHS * len(setting.train))


def _nothing(setting: Setting) -> Work:
    """Draw what another study of the plan has read."""
    return Work()


def _layers(setting: Setting) -> Work:
    """Read both sides once; fit the heads, those of the control and of shuffled labels."""
    learned, held = tokens_of(setting)
    fits = _layer_count(setting) * EPOCHS * len(setting.train) * (2 + SHUFFLES)
    return Work(tokens=learned + held, rows=fits)


def _persistence(setting: Setting, options: PersistenceOptions) -> Work:
    """Write the replies, read them with their messages and alone, and fit to their states."""
    texts = len(setting.train) + len(setting.test)
    short = min(ROUND, options.max_new_tokens)
    steps = texts / BATCH_ROWS * _steps_of_replies(options.max_new_tokens)
    learned, held = tokens_of(setting)
    spoken = texts * short / 2
    states = len(setting.train) * options.states_per_reply
    fits = EPOCHS * states * (_layer_count(setting) + 1 + options.shuffles)
    return Work(tokens=2 * (learned + held + spoken), steps=steps, rows=fits)


def _run_notebook(setting: Setting, accounts: Accounts) -> Findings:
    options = NotebookOptions(
        work=setting.work / "notebook",
        batch_tokens=setting.batch_tokens,
        report=setting.report,
    )
    return study_notebook(accounts, setting.loaded, options)


def _notebook(setting: Setting, accounts: Accounts) -> Work:
    """Read all prompts; fit heads at five positions; push the last token at many places."""
    letters = sum(map(len, accounts.texts)) + QUESTION * len(accounts)
    layers = _layer_count(setting)
    pushes = PUSHES * layers * NotebookOptions(work=setting.work).texts
    return Work(
        tokens=letters / LETTERS + pushes,
        rows=EPOCHS * len(accounts) * layers * (5 * (2 + SHUFFLES)),
    )


def _layer_count(setting: Setting) -> int:
    blocks = find_blocks(setting.loaded.model, setting.loaded.blocks)
    return len(resolve_layers(setting.layers, blocks.n_layers))
