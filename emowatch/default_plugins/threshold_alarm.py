"""Raise an alarm when a label's score stays high over several tokens of a reply."""

from __future__ import annotations

from collections.abc import Callable

from emowatch import hookimpl
from emowatch.default_plugins.counting import Counting
from emowatch.default_plugins.rules import Reaction, Scope, key_of, level_of
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
        self.can_wait = self._reaction.only_logs
        self.level = level_of(NAME, level)
        self._counting = Counting(NAME, threshold, consecutive, window, cooldown, release)

    @property
    def threshold(self) -> float:
        """Lowest score that counts."""
        return self._counting.threshold

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Check that the bank and the label exist.

        Raises:
            ValueError: if they do not; it lists those that do.
        """
        self._counting.forget_all()
        self._scope.check(session)
        self._reaction.check(session)

    @hookimpl
    def judge(self, score: TokenScore) -> list[Alarm] | None:
        """Count the token; raise an alarm for each label that is due."""
        labels, values = self._scope.values(score)
        if not labels:
            return None
        due = self._counting.due(key_of(score), score.offset or 0, values)
        return [self._alarm(score, labels[place], values[place]) for place in due] or None

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Forget what was counted for this row."""
        self._counting.forget(turn)

    @hookimpl
    def session_finished(self) -> None:
        """Forget everything; the next session counts its turns from 0 again."""
        self._counting.forget_all()

    def _alarm(self, score: TokenScore, label: str, value: float) -> Alarm:
        return self._reaction.raise_(
            rule=f"{label} {self._counting.told}",
            label=label,
            level=self.level,
            score=value,
            threshold=self._counting.threshold,
            bank=score.bank,
            turn=score.turn,
            sequence=score.sequence,
            offset=score.offset,
        )
