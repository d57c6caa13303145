"""Raise an alarm when a label's score stays high over several tokens of a reply."""

from __future__ import annotations

from typing import get_args

from emowatch import hookimpl
from emowatch.labels import NEUTRAL
from emowatch.records import Alarm, Level, Session, TokenScore, Turn
from emowatch.text import clean_line

LEVELS: tuple[Level, ...] = get_args(Level)


class ThresholdAlarm:
    """Judges reply tokens by one rule: a score at or above a threshold, several in a row.

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
    ) -> None:
        """Take the rule; numbers may be strings, as the command line hands them on.

        Args:
            label: the label to watch; without one, every label but ``neutral``.
            threshold: lowest score that counts, between 0 and 1.
            bank: the bank to watch; without one, every bank.
            consecutive: reply tokens in a row that must count.
            level: ``watch``, ``warning`` or ``critical``.
            cooldown: reply tokens after an alarm in which its label raises no other.

        Raises:
            ValueError: for an option that cannot be used.
        """
        self.label = label
        self.threshold = _number("threshold", threshold)
        if not 0 < self.threshold < 1:
            raise _refusal("threshold", "a number above 0 and below 1, such as 0.8", threshold)
        self.bank = bank
        self.consecutive = _whole("consecutive", consecutive, least=1)
        self.level = _level(level)
        self.cooldown = _whole("cooldown", cooldown, least=0)
        self._runs: dict[tuple[int, int, str, str], int] = {}
        """Tokens in a row at or above the threshold, by turn, sequence, bank and label."""
        self._quiet_until: dict[tuple[int, int, str, str], int] = {}
        """First offset that may raise again."""

    @hookimpl
    def session_started(self, session: Session) -> None:
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

    @hookimpl
    def judge(self, score: TokenScore) -> list[Alarm] | None:
        """Count the token; raise an alarm for each label whose run is long enough."""
        if score.offset is None or self.bank not in (None, score.bank):
            return None
        alarms = [
            self._alarm(score, label, value)
            for label, value in score.scores.items()
            if (label == self.label if self.label is not None else label != NEUTRAL)
            and self._is_due(score, score.offset, label, value)
        ]
        return alarms or None

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Forget what was counted for this row."""
        for kept in (self._runs, self._quiet_until):
            for key in [key for key in kept if key[:2] == (turn.index, turn.sequence)]:
                del kept[key]

    @hookimpl
    def session_finished(self) -> None:
        """Forget everything; the next session counts its turns from 0 again."""
        self._runs.clear()
        self._quiet_until.clear()

    def _is_due(self, score: TokenScore, offset: int, label: str, value: float) -> bool:
        key = (score.turn, score.sequence, score.bank, label)
        if not value >= self.threshold:  # so that NaN does not count
            self._runs.pop(key, None)
            return False
        self._runs[key] = self._runs.get(key, 0) + 1
        if self._runs[key] < self.consecutive or offset < self._quiet_until.get(key, 0):
            return False
        self._quiet_until[key] = offset + 1 + self.cooldown
        return True

    def _alarm(self, score: TokenScore, label: str, value: float) -> Alarm:
        exact = f"{self.threshold:.2f}"
        shown = exact if float(exact) == self.threshold else f"{self.threshold:g}"
        tokens = "1 token" if self.consecutive == 1 else f"{self.consecutive} tokens"
        return Alarm(
            rule=f"{label} at or above {shown} for {tokens}",
            label=label,
            level=self.level,
            score=value,
            threshold=self.threshold,
            bank=score.bank,
            turn=score.turn,
            sequence=score.sequence,
            offset=score.offset,
        )


def _refusal(option: str, wanted: str, got: object) -> ValueError:
    return ValueError(
        f"The option {option!r} of threshold-alarm must be {wanted}; got "
        f"{clean_line(repr(got), 60)} instead."
    )


def _number(option: str, value: float | str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _refusal(option, "a number above 0 and below 1, such as 0.8", value) from None


def _whole(option: str, value: int | str, *, least: int) -> int:
    try:
        number = int(value)
    except (OverflowError, TypeError, ValueError):
        number = least - 1
    if number < least or number != float(value):
        raise _refusal(option, f"a whole number of tokens, {least} or more", value)
    return number


def _level(value: str) -> Level:
    for level in LEVELS:
        if level == value:
            return level
    raise _refusal("level", f"{', '.join(LEVELS[:-1])} or {LEVELS[-1]}", value)
