"""The values that cross borders: what plugins, screens and traces see.

Plain data: no torch, no model. Arrays are read-only float32.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emowatch.labels import LabelSets

Segment = Literal["system", "user", "thinking", "reply", "tool", "special"]
SEGMENTS: tuple[Segment, ...] = ("system", "user", "thinking", "reply", "tool", "special")
FinishReason = Literal["stop", "length", "cancelled", "failed", "alarm"]
Level = Literal["watch", "warning", "critical"]
Mode = Literal["add", "clamp", "ablate"]
Positions = Literal["all", "reply"]
Action = Literal["warn", "call", "webhook", "stop", "system", "steer"]
ACTIONS: tuple[Action, ...] = ("warn", "call", "webhook", "stop", "system", "steer")
Floats: TypeAlias = NDArray[np.float32]


class Scores(Mapping[str, float]):
    """Calibrated probabilities by label; a read-only mapping over one float32 array."""

    __slots__ = ("_labels", "_values")

    def __init__(self, labels: tuple[str, ...], values: Floats) -> None:
        """Wrap `values` ``[labels]``: a read-only view, not a copy."""
        self._labels = labels
        self._values = values.view()
        self._values.flags.writeable = False

    def __getitem__(self, label: str) -> float:
        """Return the score of one label."""
        try:
            return float(self._values[self._labels.index(label)])
        except ValueError:
            known = ", ".join(self._labels)
            raise KeyError(f"no score for {label!r}; the labels are: {known}") from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the labels in the bank's order."""
        return iter(self._labels)

    def __len__(self) -> int:
        """Count the labels."""
        return len(self._labels)

    def items(self) -> ItemsView[str, float]:
        """Give labels with their scores; faster than looking each label up."""
        return dict(zip(self._labels, self._values.tolist(), strict=True)).items()

    def __repr__(self) -> str:
        """Show label and score pairs."""
        inside = ", ".join(f"{k}={v:.3f}" for k, v in self.items())
        return f"Scores({inside})"

    @property
    def array(self) -> Floats:
        """The scores ``[labels]`` in the bank's order, read-only."""
        return self._values

    @property
    def dominant(self) -> str:
        """The label with the highest score."""
        return self._labels[int(self._values.argmax())]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScore:
    """What one bank says of one token.

    With an `offset` it speaks of reply token number `offset`, which is sampled *from* this
    state: the score exists before the token does. Without one it speaks of the prompt token
    at `position`.
    """

    bank: str
    turn: int
    sequence: int
    """Row of the batch."""
    position: int
    """Index of the state's token in its own row, padding not counted."""
    offset: int | None
    """Reply token that this state produces; `None` before the last prompt token."""
    segment: Segment
    scores: Scores
    """Scores at the bank's primary layer."""
    layers: tuple[int, ...] = ()
    """Layers of `layer_scores`; empty unless all layers are watched."""
    layer_scores: Floats | None = field(default=None, compare=False)
    """Scores ``[layers, labels]`` where all layers are watched; left out of comparisons."""
    distance: float | None = None
    """How unlike the states of its calibration the bank finds this one; above 1 it abstains. `None`
    where it does not measure that."""
    sets: LabelSets | None = field(default=None, repr=False)
    """What decides which labels are plausible; `None` where the bank has no sets."""

    @property
    def dominant(self) -> str:
        """The label with the highest score."""
        return self.scores.dominant

    @property
    def label_set(self) -> tuple[str, ...]:
        """The plausible labels, highest score first; empty where no set was calibrated."""
        return () if self.sets is None else self.sets.of(self.scores, self.offset)

    @property
    def abstains(self) -> bool:
        """Whether the bank has nothing to say here, whatever the scores: the state is unlike
        those that it was calibrated on."""
        return self.distance is not None and not self.distance <= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyToken:
    """One generated token with the scores of every bank, first bank first."""

    text: str
    """What the token adds to the reply; empty while a character is incomplete."""
    token_id: int
    by_bank: tuple[TokenScore, ...]

    @property
    def offset(self) -> int:
        """Index of the token in the reply."""
        offset = self.by_bank[0].offset
        assert offset is not None
        return offset

    @property
    def scores(self) -> Scores:
        """Scores of the first bank."""
        return self.by_bank[0].scores

    @property
    def dominant(self) -> str:
        """The label with the highest score in the first bank."""
        return self.by_bank[0].dominant


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How scores have moved away from a baseline."""

    segment: Segment
    direction: Literal["up", "down"]
    size: float
    """Moving average of the score less the baseline's mean."""
    turn: int
    place: int
    """With `turn` the token where it seems to have begun: its offset in the reply, or its position
    where the segment stands in prompts."""
    tokens: int
    """Tokens of the segment since then."""
    chart: str
    p: float
    """Share of the baseline's rows that went as far, at least 1 of their number and one more."""

    def fields(self) -> dict[str, Any]:
        """Give it as plain values, whatever kind of number a plugin took."""
        return {
            "segment": str(self.segment),
            "direction": str(self.direction),
            "size": float(self.size),
            "turn": int(self.turn),
            "place": int(self.place),
            "tokens": int(self.tokens),
            "chart": str(self.chart),
            "p": float(self.p),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A judgement that a score asks for attention."""

    rule: str
    """Which rule spoke, in words a person can read."""
    label: str
    level: Level
    score: float
    threshold: float
    bank: str
    turn: int
    sequence: int
    offset: int | None
    actions: tuple[Action, ...] = ()
    """What is to be done about it, beside telling every plugin that hears of alarms. The core
    writes a line on stderr for ``warn``, ends the reply for ``stop``, and does what `system` and
    `steering` hold; ``call`` is the rule's to do, ``webhook`` that of the plugin of this name."""
    system: str | None = field(default=None, repr=False)
    """The system prompt of the next turn, with the action ``system``."""
    steering: Steering | None = None
    """What is done in this row until the turn's end, with the action ``steer``."""
    drift: Drift | None = None
    """What has moved, where it is the rule's to tell."""

    def fields(self) -> dict[str, Any]:
        """Give what a log may keep: no text of prompts, and no arrays."""
        kept = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("system", "steering", "drift")
        }
        return kept if self.drift is None else kept | {"drift": self.drift.fields()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """A wish to change the residual along a direction from the next forward on."""

    direction: str | Floats
    """A label of a bank, ``bank/label`` where several know it, or an array ``[d_model]``."""
    layer: int
    """Layer whose states are changed; below the number of blocks."""
    strength: float = 1.0
    """In units of the residual's RMS at that layer; under `ablate` the share that is taken out,
    between 0 and 1."""
    mode: Mode = "add"
    """``add``: ``h += strength · rms(h) · d``. ``clamp``: the component of ``h`` along ``d`` is set
    to ``strength · rms(h)``. ``ablate``: ``h -= strength · (h · d) d``, with 1 the projection."""
    positions: Positions = "reply"
    """Which states of a turn are changed: all, or those of reply tokens. Only an answer to
    `steer_turn` comes before the prompt and can reach ``all``."""
    shadow: bool = False
    """Record it and change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringChange:
    """What one plugin does to the residual of one row, from one state on.

    It holds until the next change of the same turn, row, layer, plugin, direction and mode; one
    with `ended` ends it. Strengths are in units of the residual's RMS at that layer, those of
    `ablate` shares.
    """

    turn: int
    sequence: int
    offset: int | None
    """State at which it was decided; the states after this one are changed. `None` is before the
    first: the prompt's states are changed too."""
    plugin: str
    direction: str
    """A label of a bank, or ``sha256:`` and the start of the hash of an array."""
    layer: int
    strength: float
    """As asked for; the sum where a plugin asked several times to add."""
    applied: float
    """What is done of it after the cap; 0 of a shadow."""
    total: float
    """Length of the sum of what all plugins add at this layer in this row, after the cap."""
    mode: Mode = "add"
    shadow: bool = False
    """Whether it is recorded only."""
    ended: bool = False
    """Whether it is over; a clamp to 0 is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One finished reply in one row of the batch."""

    index: int
    sequence: int
    prompt_tokens: int
    reply_tokens: int
    finish_reason: FinishReason
    text: str
    """The reply, special tokens left out. The last token of an own loop is not known: it is never
    fed back to the model."""
    token_ids: tuple[int, ...]
    pieces: tuple[str, ...] = ()
    """What each token adds to the text; empty where a character is not complete, and where the
    trace keeps no text."""
    settings: Mapping[str, Any]
    """How tokens were chosen: sampling, temperature, limits, the seed where one was asked for."""
    mean_scores: Mapping[str, Scores]
    """Mean score over the reply by bank name, thoughts and tool calls left out; empty where nothing
    is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankInfo:
    """What a plugin may know of a bank."""

    name: str
    labels: tuple[str, ...]
    layers: tuple[int, ...]
    primary: int
    target: str
    sha256: str
    readout: str = ""
    """Which states it was trained on; empty in traces that do not say."""
    offsets: tuple[int, int] | None = None
    """First and last offset seen in training; `None` in traces that do not say."""
    at_chance: tuple[tuple[int, int], ...] = ()
    """Ranges of offsets, first and last, where the bank's test showed nothing above chance."""
    sets: LabelSets | None = None
    """What decides which labels are plausible; `None` where sets were not calibrated."""
    can_abstain: bool = False
    """Whether the bank measures how unlike those of its calibration a state is."""

    @property
    def reads_prompts(self) -> bool:
        """Whether it was trained on the end of prompts alone: its scores of the reply are
        extrapolated."""
        return self.readout in ("last_prompt_token", "positions") and self.offsets == (0, 0)

    def knows(self, offset: int) -> bool:
        """Tell whether the bank's test speaks for its scores at an offset, or is silent on it."""
        return not any(first <= offset <= last for first, last in self.at_chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a plugin may know of the session it is in."""

    id: str
    model: str
    banks: tuple[BankInfo, ...]
    n_layers: int
    d_model: int
    seed: int
    """The seed asked for, else torch's when the session began. A turn that was seeded for itself
    has its own among its settings."""
    certificate: Mapping[str, Any] = field(default_factory=dict)
    """The doctor's findings, where it was run."""
