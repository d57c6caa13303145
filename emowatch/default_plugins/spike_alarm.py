"""Raise an alarm when a label's score rises fast, however high it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite

from emowatch import hookimpl
from emowatch.default_plugins.rules import (
    Key,
    Reaction,
    Scope,
    counted,
    fraction,
    key_of,
    level_of,
    whole,
)
from emowatch.records import Alarm, Session, TokenScore, Turn

NAME = "spike-alarm"


@dataclass(slots=True)
class _Row:
    """One row and bank; labels by their place."""

    last: deque[Sequence[float]]
    """Scores of the tokens just before, those that are numbers."""
    quiet_until: dict[int, int] = field(default_factory=dict)
    """First offset that may raise again."""


class SpikeAlarm:
    """Compares each reply token with the lowest of those just before it.

    Turns, rows of a batch, banks and labels are compared apart.
    """

    def __init__(
        self,
        label: str | None = None,
        rise: float | str = 0.5,
        within: int | str = 8,
        bank: str | None = None,
        level: str = "watch",
        cooldown: int | str = 32,
        action: str = "log",
        system: str | None = None,
        steer: str | None = None,
        call: Callable[[Alarm], object] | None = None,
    ) -> None:
        """Take the rule; numbers may be strings, as the command line hands them on.

        Args:
            label: the label to watch; without one, every label but ``neutral``.
            rise: smallest rise that counts, between 0 and 1.
            within: reply tokens in which it rises.
            bank: the bank to watch; without one, every bank.
            level: ``watch``, ``warning`` or ``critical``.
            cooldown: reply tokens after an alarm in which its label raises no other.
            action: what is done about an alarm: ``log``, ``warn``, ``webhook`` or ``stop``, several
                joined by ``+``.
            system: a system prompt for the next turn.
            steer: what is added until the turn's end, as in ``joy:4``, or ``joy:4@5`` at layer 5.
            call: a function that is called with each alarm.

        Raises:
            ValueError: for an option that cannot be used.
        """
        self._scope = Scope(label, bank)
        self._reaction = Reaction(NAME, action, system, steer, call)
        self.can_wait = self._reaction.only_logs
        self.rise = fraction(NAME, "rise", rise)
        self.within = whole(NAME, "within", within, least=1)
        self.level = level_of(NAME, level)
        self.cooldown = whole(NAME, "cooldown", cooldown, least=0)
        self._rows: dict[Key, _Row] = {}

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Begin anew, and check that the bank and the label exist.

        Raises:
            ValueError: if they do not; it lists those that do.
        """
        self.session_finished()
        self._scope.check(session)
        self._reaction.check(session)

    @hookimpl
    def judge(self, score: TokenScore) -> list[Alarm] | None:
        """Raise an alarm for each label that has risen enough."""
        labels, values = self._scope.values(score)
        if not labels:
            return None
        alarms: list[Alarm] = []
        key = key_of(score)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row(deque(maxlen=self.within))
        if not max(values) < self.rise and row.last:  # nearly never: none is below 0
            alarms = self._rises(score, row, labels, values)
        if isfinite(sum(values)):  # what is no number is compared with nothing
            row.last.append(values)
        return alarms or None

    def _rises(
        self, score: TokenScore, row: _Row, labels: Sequence[str], values: Sequence[float]
    ) -> list[Alarm]:
        alarms, offset = [], score.offset or 0
        for place, value in enumerate(values):
            rose = value - min(before[place] for before in row.last)
            if rose >= self.rise and offset >= row.quiet_until.get(place, 0):
                row.quiet_until[place] = offset + 1 + self.cooldown
                alarms.append(self._alarm(score, labels[place], value, rose))
        return alarms

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Forget the tokens of this row."""
        for key in [key for key in self._rows if key[:2] == (turn.index, turn.sequence)]:
            del self._rows[key]

    @hookimpl
    def session_finished(self) -> None:
        """Forget everything; the next session counts its turns from 0 again."""
        self._rows.clear()

    def _alarm(self, score: TokenScore, label: str, value: float, rose: float) -> Alarm:
        return self._reaction.raise_(
            rule=f"{label} rose by {rose:.2f} within {counted(self.within)}",
            label=label,
            level=self.level,
            score=value,
            threshold=value - rose + self.rise,
            bank=score.bank,
            turn=score.turn,
            sequence=score.sequence,
            offset=score.offset,
        )
