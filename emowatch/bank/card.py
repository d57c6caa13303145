"""What a bank says of itself: the card in its header."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from emowatch.bank.heads import HEAD_KINDS, MAX_OFFSET, HeadKind
from emowatch.bank.keyword_free import KeywordFree
from emowatch.bank.uncertainty import Interval as Interval
from emowatch.bank.uncertainty import SetMetrics, Uncertainty
from emowatch.errors import ProbeFormatError
from emowatch.labels import LabelSets, check_labels
from emowatch.text import clean_line, is_printable

SCHEMA = 1
Target = Literal["user", "reply", "vector"]
Readout = Literal["last_prompt_token", "positions", "mean", "reply"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """SHA-256 of what a bank's numbers hang on; empty where unknown."""

    config: str
    """Shape of the model: a mismatch is an error."""
    tokenizer: str = ""
    template: str = ""
    weights: str = ""
    """A fixed slice of the weights of the middle block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMetrics:
    """Test metrics of one layer's head; each interval is 95 %, by bootstrap over groups."""

    layer: int
    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    ece: float
    ece_interval: Interval
    shuffled_balanced_accuracy: float | None
    """Of a head of the same kind fitted to shuffled labels; `None` where not fitted."""
    shuffled_balanced_accuracy_interval: Interval | None = None
    """`None` where not fitted, and on cards from before it was measured; as are those below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetMetrics:
    """Test metrics of the primary layer's head over a range of offsets."""

    first: int
    last: int
    n: int
    """Replies that reach this far."""
    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    ece: float
    ece_interval: Interval | None = None
    ece_null: float | None = None
    """What scores that are calibrated perfectly come to on as many rows; `None` on cards from
    before it was measured, as are those below."""
    coverage: float | None = None
    """Of the label sets."""
    coverage_interval: Interval | None = None
    size: float | None = None
    """Mean number of labels in a set."""
    size_interval: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Metrics on one test set beside their floors."""

    data: str
    sha256: str
    n: int
    """Test examples, after undersampling to the smallest class."""
    rows: int
    """States that were scored: several for each example where offsets are read."""
    per_class_rows: Mapping[str, int]
    chance: float
    tfidf_balanced_accuracy: float | None
    tfidf_balanced_accuracy_interval: Interval | None
    layers: tuple[LayerMetrics, ...]
    precision: Mapping[str, float]
    """Of the primary layer, by label, those that were never predicted left out."""
    recall: Mapping[str, float]
    """Of the primary layer, by label, those without test rows left out."""
    confusion: tuple[tuple[int, ...], ...]
    """Of the primary layer: rows are true labels, columns predicted ones."""
    precision_interval: Mapping[str, Interval] = field(default_factory=dict)
    recall_interval: Mapping[str, Interval] = field(default_factory=dict)
    by_offset: tuple[OffsetMetrics, ...] = ()
    note: str = ""
    keyword_free: KeywordFree | None = None
    """`None` where not measured, and on cards from before it was."""
    ece_null: float | None = None
    """Of the primary layer: what scores that are calibrated perfectly come to on as many rows."""
    sets: SetMetrics | None = None
    """Of the label sets, where the bank has some."""

    @property
    def at_chance(self) -> tuple[tuple[int, int], ...]:
        """Ranges of offsets whose 95 % interval of balanced accuracy does not pass chance."""
        return tuple(
            (found.first, found.last)
            for found in self.by_offset
            if found.balanced_accuracy_interval[0] <= self.chance
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What a bank learned from."""

    source: str
    sha256: str
    licence: str
    examples: int
    quarantined: Mapping[str, int]
    """Rows that could not be used, by reason."""
    split: str
    """How examples were parted, in words."""
    per_class: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BankCard:
    """Everything a bank says of itself; stored as JSON in the file's header."""

    name: str
    model: str
    """Base model: hub id or folder name."""
    revision: str
    d_model: int
    n_layers: int
    fingerprints: Fingerprints
    layers: tuple[int, ...]
    primary: int
    labels: tuple[str, ...]
    target: Target
    head: HeadKind
    readout: Readout
    template: bool
    """Whether prompts went through the chat template."""
    offsets: tuple[int, int]
    """First and last offset seen in training."""
    bins: tuple[int, ...]
    """First offset of each calibration bin."""
    data: TrainingData
    training: Mapping[str, str | int | float]
    """Options of the fit."""
    evaluation: Evaluation | None = None
    uncertainty: Uncertainty | None = None
    """Label sets and abstention; `None` where they were not calibrated."""
    licence: str = ""
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            ProbeFormatError: naming the field.
        """
        if self.schema != SCHEMA:
            _refuse("schema", f"{self.schema}, and this version of emowatch reads {SCHEMA}")
        try:
            check_labels(self.labels)
        except ValueError as error:
            raise ProbeFormatError(f"The bank's labels cannot be used: {error}.") from error
        if len(self.labels) < 2:
            _refuse("labels", f"{self.labels}, and a classifier needs two")
        if self.head not in HEAD_KINDS:
            _refuse("head", f"{self.head!r}, and the kinds are {', '.join(HEAD_KINDS)}")
        if not (1 <= self.n_layers <= 1024 and 1 <= self.d_model <= 65536):
            _refuse("n_layers and d_model", f"{self.n_layers} and {self.d_model}")
        inside = all(0 <= layer <= self.n_layers for layer in self.layers)
        if not self.layers or not inside or list(self.layers) != sorted(set(self.layers)):
            _refuse("layers", f"{self.layers}: they must ascend within 0 to {self.n_layers}")
        if self.primary not in self.layers:
            _refuse("primary", f"{self.primary}, which is not among its layers {self.layers}")
        bins = self.bins
        if not bins or bins[0] != 0 or list(bins) != sorted(set(bins)) or bins[-1] > MAX_OFFSET:
            _refuse("bins", f"{bins}: they must ascend from 0 to at most {MAX_OFFSET}")
        if not 0 <= self.offsets[0] <= self.offsets[1]:
            _refuse("offsets", f"{self.offsets}")
        if self.uncertainty is not None and (fault := self.uncertainty.fault(bins)):
            _refuse("uncertainty", fault)
        for name in ("name", "model", "revision", "licence"):
            value = getattr(self, name)
            if len(value) > 300 or (value and not is_printable(value)):
                _refuse(name, f"{clean_line(repr(value), 80)}, which is too long or unprintable")

    @property
    def can_abstain(self) -> bool:
        """Whether the file holds what the distance of states is measured with."""
        return self.uncertainty is not None and self.uncertainty.keeps is not None

    @property
    def label_sets(self) -> LabelSets | None:
        """What decides which labels are plausible; `None` where the bank has no sets."""
        found = self.uncertainty
        if found is None:
            return None
        return LabelSets(
            level=found.level, bins=self.bins, thresholds=found.thresholds, last=found.last
        )

    def to_json(self) -> str:
        """Write the card as one line of JSON.

        Raises:
            ProbeFormatError: for a figure that is NaN or infinite.
        """
        try:
            return json.dumps(asdict(self), ensure_ascii=True, allow_nan=False, sort_keys=True)
        except ValueError as error:
            raise ProbeFormatError(
                f"Could not write the card of {self.name!r}: {error}."
            ) from error

    @classmethod
    def from_json(cls, text: str) -> BankCard:
        """Read a card, checking every field's type.

        Raises:
            ProbeFormatError: naming the field that is wrong.
        """
        try:
            table = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ProbeFormatError(
                f"The bank's card is not JSON: {clean_line(str(error))}"
            ) from error
        # A later schema has fields that would only be called unknown.
        schema = table.get("schema", SCHEMA) if isinstance(table, dict) else SCHEMA
        if type(schema) is int and schema != SCHEMA:
            _refuse("schema", f"{schema}, and this version of emowatch reads {SCHEMA}")
        card = _build(cls, table, "card")
        assert isinstance(card, cls)
        return card


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _refuse(name: str, found: str) -> None:
    raise ProbeFormatError(f"The bank's {name} cannot be used: it is {clean_line(found, 200)}.")


def _build(kind: Any, value: Any, place: str) -> Any:
    """Turn parsed JSON into `kind`, a type as annotated on the card's fields."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and type(None) in inner:
            return None
        kinds = [k for k in inner if k is not type(None)]
        return _build(next((k for k in kinds if type(value) is k), kinds[0]), value, place)
    if origin is Literal:
        if value not in inner:
            _refuse(place, f"{value!r}, and it may be {', '.join(map(str, inner))}")
        return value
    if origin is tuple and isinstance(value, list):
        if inner[-1] is Ellipsis:
            return tuple(_build(inner[0], item, place) for item in value)
        if len(value) == len(inner):
            return tuple(_build(k, item, place) for k, item in zip(inner, value, strict=True))
    elif origin is Mapping and isinstance(value, dict):
        return {key: _build(inner[1], item, place) for key, item in value.items()}
    elif hasattr(kind, "__dataclass_fields__") and isinstance(value, dict):
        return _build_dataclass(kind, value, place)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max:  # neither NaN nor an integer too large to convert
            return float(value)
    elif kind in (int, str, bool) and type(value) is kind:
        return value
    _refuse(place, f"{value!r}, which is not {getattr(kind, '__name__', kind)}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Resolve the annotations of a record; the same few, a thousand times slower than a look-up."""
    return get_type_hints(kind)


def _build_dataclass(kind: Any, value: dict[str, Any], place: str) -> Any:
    hints = _hints(kind)
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(value) - known):
        _refuse(place, f"given the unknown field {unknown[0]!r}")
    built = {k: _build(hints[k], v, f"{place}.{k}") for k, v in value.items()}
    try:
        return kind(**built)
    except TypeError as error:
        raise ProbeFormatError(f"The bank's {place} is incomplete: {error}.") from error
