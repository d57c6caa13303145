"""What the built-in alarms share: options that may be strings, and which labels count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from emowatch.labels import NEUTRAL
from emowatch.records import Level, Session, TokenScore
from emowatch.text import clean_line

LEVELS: tuple[Level, ...] = get_args(Level)
Key = tuple[int, int, str, str]
"""Turn, row, bank and label: what is counted apart."""


class Scope:
    """The labels that a rule watches: one or all but neutral, of one bank or of all."""

    def __init__(self, label: str | None, bank: str | None) -> None:
        """Take the names; `None` is every one."""
        self.label = label
        self.bank = bank

    def check(self, session: Session) -> None:
        """Check that the bank and the label exist.

        Raises:
            ValueError: if they do not; it lists those that do.
        """
        names = [bank.name for bank in session.banks]
        if self.bank is not None and self.bank not in names:
            raise ValueError(
                f"There is no bank {clean_line(self.bank)!r} in this session; "
                f"there are: {', '.join(map(clean_line, names))}."
            )
        banks = [bank for bank in session.banks if self.bank in (None, bank.name)]
        labels = dict.fromkeys(label for bank in banks for label in bank.labels)
        if self.label is not None and self.label not in labels:
            raise ValueError(
                f"No bank here has the label {clean_line(self.label)!r}; "
                f"the labels are: {', '.join(map(clean_line, labels))}."
            )

    def values(self, score: TokenScore) -> Iterator[tuple[Key, str, float]]:
        """Give key, label and score of what is watched; nothing of prompts and other banks."""
        if score.offset is None or self.bank not in (None, score.bank):
            return
        for label, value in score.scores.items():
            if label == self.label if self.label is not None else label != NEUTRAL:
                yield (score.turn, score.sequence, score.bank, label), label, value


def refusal(plugin: str, option: str, wanted: str, got: object) -> ValueError:
    """Say what an option must be, and what it was."""
    return ValueError(
        f"The option {option!r} of {plugin} must be {wanted}; got "
        f"{clean_line(repr(got), 60)} instead."
    )


def fraction(plugin: str, option: str, value: float | str) -> float:
    """Read a number between 0 and 1, both left out.

    Raises:
        ValueError: for anything else.
    """
    wanted = "a number above 0 and below 1, such as 0.8"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise refusal(plugin, option, wanted, value) from None
    if not 0 < number < 1:
        raise refusal(plugin, option, wanted, value)
    return number


def whole(plugin: str, option: str, value: int | str, *, least: int) -> int:
    """Read a whole number of tokens, `least` or more.

    Raises:
        ValueError: for anything else.
    """
    try:
        number = int(value)
    except (OverflowError, TypeError, ValueError):
        number = least - 1
    if number < least or number != float(value):
        raise refusal(plugin, option, f"a whole number of tokens, {least} or more", value)
    return number


def level_of(plugin: str, value: str) -> Level:
    """Read a level.

    Raises:
        ValueError: for one that there is not.
    """
    for level in LEVELS:
        if level == value:
            return level
    raise refusal(plugin, "level", f"{', '.join(LEVELS[:-1])} or {LEVELS[-1]}", value)


def shown(number: float) -> str:
    """Write a threshold with two decimals, or with as many as it has."""
    exact = f"{number:.2f}"
    return exact if float(exact) == number else f"{number:g}"


def counted(tokens: int) -> str:
    """Write a number of tokens in words."""
    return "1 token" if tokens == 1 else f"{tokens} tokens"
