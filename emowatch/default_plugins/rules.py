"""What the built-in alarms share: options that may be strings, which labels count, and what is to
be done about an alarm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from operator import itemgetter
from typing import Any, get_args

from emowatch.labels import NEUTRAL
from emowatch.records import (
    ACTIONS,
    Alarm,
    BankInfo,
    Level,
    Session,
    Steering,
    TokenScore,
)
from emowatch.text import clean_line

LOG = "log"
"""Stands for no action beside what loggers do with every alarm."""
LEVELS: tuple[Level, ...] = get_args(Level)
Key = tuple[int, int, str]
"""Turn, row and bank: what is counted apart, for each label."""


class Scope:
    """The labels that a rule watches: one or all but neutral, of one bank or of all."""

    def __init__(self, label: str | None, bank: str | None) -> None:
        """Take the names; `None` is every one."""
        self.label = label
        self.bank = bank
        self._watched: dict[str, tuple[tuple[str, ...], Callable[[list[float]], Any]]] = {}
        """Of each bank the labels that are watched, and what takes their scores out of its own."""

    def check(self, session: Session) -> None:
        """Check that the bank and the label exist.

        Raises:
            ValueError: if they do not; it lists those that do.
        """
        self._watched.clear()
        banks = banks_of(session, self.bank)
        labels = dict.fromkeys(label for bank in banks for label in bank.labels)
        if self.label is not None and self.label not in labels:
            raise ValueError(
                f"No bank here has the label {clean_line(self.label)!r}; the labels are: "
                f"{choices(self.label, labels)}"
            )

    def values(self, score: TokenScore) -> tuple[Sequence[str], Sequence[float]]:
        """Give the labels that are watched and their scores; none of prompts and other banks."""
        if score.offset is None or self.bank not in (None, score.bank):
            return (), ()
        watched = self._watched.get(score.bank)
        if watched is None:
            watched = self._watched[score.bank] = self._labels(tuple(score.scores))
        labels, take = watched
        return labels, take(score.scores.array.tolist())

    def _labels(self, labels: tuple[str, ...]) -> tuple[tuple[str, ...], Any]:
        """Choose among the labels of a bank."""
        places = [
            place
            for place, label in enumerate(labels)
            if (label == self.label if self.label is not None else label != NEUTRAL)
        ]
        return tuple(labels[place] for place in places), taking(places)


def banks_of(session: Session, name: str | None) -> list[BankInfo]:
    """Give the bank of this name, or all of them.

    Raises:
        ValueError: if there is none; it lists those that there are.
    """
    found = [bank for bank in session.banks if name in (None, bank.name)]
    if name is not None and not found:
        names = [bank.name for bank in session.banks]
        raise ValueError(
            f"There is no bank {clean_line(name)!r} in this session; there are: "
            f"{choices(name, names)}"
        )
    return found


def choices(wanted: str, known: Iterable[str]) -> str:
    """List what there is, and what was perhaps meant."""
    names = list(known)
    near = get_close_matches(wanted, names, 1)
    hint = f" Did you mean {clean_line(near[0])!r}?" if near else ""
    return f"{', '.join(map(clean_line, names))}.{hint}"


def taking(places: Sequence[int]) -> Callable[[list[float]], Sequence[float]]:
    """Give what takes the numbers at some places out of a list."""
    if len(places) > 1:
        return itemgetter(*places)  # in one step, which counts at each token
    return lambda values: [values[place] for place in places]


def key_of(score: TokenScore) -> Key:
    """Say with which tokens one is counted."""
    return score.turn, score.sequence, score.bank


class Reaction:
    """What a rule asks to be done about its alarms."""

    def __init__(
        self,
        plugin: str,
        action: str = "log",
        system: str | None = None,
        steer: str | None = None,
        call: Callable[[Alarm], object] | None = None,
    ) -> None:
        """Take a rule's options.

        Args:
            plugin: the rule's plugin.
            action: names joined by ``+``; those that the other options stand for need no naming.
            system: the system prompt of the next turn.
            steer: ``label:strength`` or ``label:strength@layer``.
            call: called with each alarm.

        Raises:
            ValueError: for an unknown action, or one that lacks what it needs.
        """
        if call is not None and not callable(call):
            raise refusal(plugin, "call", _EXAMPLES["call"], call)
        names = [name for name in action.split("+") if name != LOG]
        if any(name not in ACTIONS for name in names):
            raise refusal(
                plugin, "action", f"{LOG}, {', '.join(ACTIONS)}, or several joined by +", action
            )
        needs = {"system": system, "steer": steer, "call": call}
        for name, needed in needs.items():
            if name in names and needed is None:
                raise ValueError(
                    f"The action {name!r} of {plugin} needs the option {name!r}: {_EXAMPLES[name]}."
                )
        given = {*names, *(name for name, needed in needs.items() if needed is not None)}
        self.actions = tuple(name for name in ACTIONS if name in given)
        self._plugin = plugin
        self._system = system
        self._steer = None if steer is None else _steering(plugin, steer)
        self._call = call
        self._layer = 0

    @property
    def only_logs(self) -> bool:
        """Whether nothing is to be done about an alarm while the reply goes on."""
        return not self.actions

    def check(self, session: Session) -> None:
        """Choose the layer to steer at, and see that there is such a direction.

        Raises:
            ValueError: if there is none.
        """
        if self._steer is not None:
            label, _, layer = self._steer
            self._layer = steering_layer(session, label, layer)

    def raise_(self, **fields: Any) -> Alarm:
        """Make an alarm that asks for all of it."""
        steering = None
        if self._steer is not None:
            label, strength, _ = self._steer
            steering = Steering(direction=label, layer=self._layer, strength=strength)
        alarm = Alarm(actions=self.actions, system=self._system, steering=steering, **fields)
        if self._call is not None:
            self._call(alarm)
        return alarm


_EXAMPLES = {
    "system": 'its text, as in system="You stay calm."',
    "steer": "a label with its strength, as in steer=joy:4",
    "call": "a function, which the command line cannot give; make the plugin in Python",
}


def _steering(plugin: str, text: str) -> tuple[str, float, int | None]:
    """Read ``label:strength@layer``."""
    label, _, rest = text.partition(":")
    strength, _, layer = rest.partition("@")
    try:
        read = label, float(strength), int(layer) if layer else None
    except ValueError:
        read = label, math.nan, None
    if not math.isfinite(read[1]):
        raise refusal(plugin, "steer", "a label and a strength, such as joy:4", text)
    return read


def steering_layer(session: Session, label: str, layer: int | None) -> int:
    """Choose a layer at which a bank has a direction of this name: `layer`, or the middle one.

    Args:
        session: says which banks and layers there are.
        label: a label, or ``bank/label``.
        layer: as asked for; without one, the layer nearest to the middle of the model. Emotion
            peaks there (paper A), and papers steer there (paper C: layers 11 to 20 of 28).

    Raises:
        ValueError: if no bank of the session has the label, or not at such a layer.
    """
    owner, _, name = label.rpartition("/")
    banks = [bank for bank in session.banks if name in bank.labels and owner in ("", bank.name)]
    if not banks:
        known = sorted({known for bank in session.banks for known in bank.labels})
        raise ValueError(
            f"No bank here has the direction {clean_line(label)!r}; the labels are: "
            f"{choices(name, known)}"
        )
    layers = [known for known in banks[0].layers if known < session.n_layers]
    if layer is None and layers:
        return min(layers, key=lambda known: abs(known - session.n_layers / 2))
    if layer not in layers:
        raise ValueError(
            f"The bank {clean_line(banks[0].name)!r} has no direction at layer {layer} that can be "
            f"steered; it has those of {', '.join(map(str, layers)) or 'none'}."
        )
    return layer


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
