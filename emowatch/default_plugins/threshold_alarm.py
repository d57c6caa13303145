"""Raise an alarm when a label's score stays high over several tokens of a reply."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from emowatch import hookimpl
from emowatch.default_plugins.rules import (
    Key,
    Reaction,
    Scope,
    counted,
    fraction,
    level_of,
    refusal,
    shown,
    whole,
)
from emowatch.records import Alarm, Session, TokenScore, Turn

NAME = "threshold-alarm"


class ThresholdAlarm:
    """Judges reply tokens by one rule: a score at or above a threshold, n of the last m tokens.

    Turns, rows of a batch, banks and labels are counted apart.
    """

    def __init__(
        self,
        label: str | None = None,
        threshold: float | str = 0.8,
        bank: str | None = None,
        consecutive: int | str = 3,
        level: str = "warning",
        cooldown: int | str = 32,
        window: int | str | None = None,
        release: float | str | None = None,
        action: str = "log",
        system: str | None = None,
        steer: str | None = None,
        call: Callable[[Alarm], object] | None = None,
    ) -> None:
        """Take the rule; numbers may be strings, as the command line hands them on.

        Args:
            label: the label to watch; without one, every label but ``neutral``.
            threshold: lowest score that counts, between 0 and 1.
            bank: the bank to watch; without one, every bank.
            consecutive: reply tokens that must count.
            level: ``watch``, ``warning`` or ``critical``.
            cooldown: reply tokens after an alarm in which its label raises no other.
            window: reply tokens among which they must be; without it they stand in a row.
            release: score below which a label must fall before it raises another alarm; without
                it, `cooldown` alone decides.
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
        self.threshold = fraction(NAME, "threshold", threshold)
        self.consecutive = whole(NAME, "consecutive", consecutive, least=1)
        self.level = level_of(NAME, level)
        self.cooldown = whole(NAME, "cooldown", cooldown, least=0)
        self.window = self.consecutive if window is None else whole(NAME, "window", window, least=1)
        if self.window < self.consecutive:
            raise refusal(
                NAME, "window", f"{self.consecutive} tokens (consecutive) or more", window
            )
        self.release = None if release is None else fraction(NAME, "release", release)
        if self.release is not None and self.release > self.threshold:
            raise refusal(
                NAME, "release", f"the threshold, {shown(self.threshold)}, or less", release
            )
        self._counted: dict[Key, deque[bool]] = {}
        """Whether each of the last tokens was at or above the threshold."""
        self._quiet_until: dict[Key, int] = {}
        """First offset that may raise again."""
        self._held: set[Key] = set()
        """What has raised an alarm and not fallen below `release` since."""

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Check that the bank and the label exist.

        Raises:
            ValueError: if they do not; it lists those that do.
        """
        self._forget_all()
        self._scope.check(session)
        self._reaction.check(session)

    @hookimpl
    def judge(self, score: TokenScore) -> list[Alarm] | None:
        """Count the token; raise an alarm for each label that is due."""
        alarms = [
            self._alarm(score, label, value)
            for key, label, value in self._scope.values(score)
            if self._is_due(key, score.offset or 0, value)
        ]
        return alarms or None

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Forget what was counted for this row."""
        row = (turn.index, turn.sequence)
        for kept in (self._counted, self._quiet_until):
            for key in [key for key in kept if key[:2] == row]:
                del kept[key]
        self._held = {key for key in self._held if key[:2] != row}

    @hookimpl
    def session_finished(self) -> None:
        """Forget everything; the next session counts its turns from 0 again."""
        self._forget_all()

    def _forget_all(self) -> None:
        self._counted.clear()
        self._quiet_until.clear()
        self._held.clear()

    def _is_due(self, key: Key, offset: int, value: float) -> bool:
        last = self._counted.get(key)
        if last is None:
            last = self._counted[key] = deque(maxlen=self.window)
        last.append(value >= self.threshold)  # NaN does not count
        if self.release is not None and value < self.release:
            self._held.discard(key)
        if not last[-1] or sum(last) < self.consecutive:
            return False
        if key in self._held or offset < self._quiet_until.get(key, 0):
            return False
        self._quiet_until[key] = offset + 1 + self.cooldown
        if self.release is not None:
            self._held.add(key)
        return True

    def _alarm(self, score: TokenScore, label: str, value: float) -> Alarm:
        among = f"{self.consecutive} of " if self.window > self.consecutive else ""
        return self._reaction.raise_(
            rule=f"{label} at or above {shown(self.threshold)} for {among}{counted(self.window)}",
            label=label,
            level=self.level,
            score=value,
            threshold=self.threshold,
            bank=score.bank,
            turn=score.turn,
            sequence=score.sequence,
            offset=score.offset,
        )
