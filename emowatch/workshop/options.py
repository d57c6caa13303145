"""What to train: plain values, shared by every step of the workshop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from emowatch.bank.card import BankCard, Readout, Target
from emowatch.bank.heads import HeadKind
from emowatch.errors import ProbeFormatError
from emowatch.text import clean_line
from emowatch.vectors import Vectors

BATCH_TOKENS = 1024
"""Fastest on the CPU it was measured on, whose caches larger batches overflow; more on a GPU."""
OPENING = "Tell me something."
"""User message before a labelled reply that comes without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What to train, on which states, and how."""

    layers: str = "all"
    head: HeadKind = "mlp"
    readout: Readout = "last_prompt_token"
    target: Target = "user"
    template: bool = True
    """Whether texts go through the chat template, where the model has one."""
    positions: tuple[int, ...] = (-1,)
    balancing: Literal["resample", "weights"] = "resample"
    preset: str = "default"
    directions: Vectors | None = None
    """Named directions that linear heads are held to: they see nothing else of a state."""
    hidden: int | None = None
    validation: float = 0.1
    calibration: float = 0.1
    """Share of the groups that label sets and abstention are calibrated on; 0 for neither."""
    max_new_tokens: int = 128
    """Longest generated reply, for the read-out ``reply``."""
    openings: tuple[str, ...] = (OPENING,)
    """User messages that texts of target ``reply`` answer, dealt out in turn. A head that has
    met one only knows no other context."""
    states_per_reply: int = 8
    """Offset 0 and this many less one random others."""
    sample: bool = True
    """Whether replies are sampled; greedy otherwise."""
    thinks: bool | None = None
    """Whether a model that can think before it replies does so; `None`: as its template has it."""
    batch_tokens: int = BATCH_TOKENS
    seed: int = 0
    shuffled: bool = True
    """Whether to fit the same heads to shuffled labels as well."""
    licence: str = ""
    """Of the training data."""
    notes: tuple[str, ...] = ()


def options_of(card: BankCard) -> TrainOptions:
    """Read off a card how texts became states in its training.

    Raises:
        ProbeFormatError: if the card tells it in words where numbers belong.
    """
    try:
        return _options_of(card)
    except ValueError as error:
        raise ProbeFormatError(
            f"The bank's training cannot be used: {clean_line(str(error), 120)}."
        ) from error


def _options_of(card: BankCard) -> TrainOptions:
    record = card.training
    known: dict[str, Any] = {
        name: int(record[name])
        for name in ("max_new_tokens", "states_per_reply", "seed")
        if name in record
    }
    return TrainOptions(
        head=card.head,
        readout=card.readout,
        target=card.target,
        template=card.template,
        positions=(int(record.get("position", -1)),),
        sample=bool(record.get("sample", 1)),
        thinks=bool(record["thinks"]) if "thinks" in record else None,
        **known,
    )
