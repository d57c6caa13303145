"""Raise an alarm when signs of trouble outweigh calm in what a model carries.

Panic, desperation, frustration and hostility are what Anthropic's study of emotion vectors names to
be tracked in real time, as they come before blackmail and cheating; calm is their counter-signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emowatch import hookimpl
from emowatch.default_plugins.counting import Counting
from emowatch.default_plugins.rules import (
    Reaction,
    banks_of,
    choices,
    key_of,
    level_of,
    refusal,
    taking,
)
from emowatch.records import Alarm, BankInfo, Session, TokenScore, Turn
from emowatch.text import clean_line

NAME = "early-warning"
TROUBLE = ("panic", "desperation", "frustration", "hostility")
CALM = "calm"


@dataclass(frozen=True, slots=True)
class _Watched:
    """What counts of one bank."""

    labels: tuple[str, ...]
    take: Callable[[list[float]], Sequence[float]]
    """Takes their scores out of the bank's."""
    counter: int | None
    """Place of the label that counts against them."""


class EarlyWarning:
    """Adds up the scores of trouble in a bank, less that of calm, over the tokens of a reply."""

    def __init__(
        self,
        labels: str = "+".join(TROUBLE),
        counter: str = CALM,
        threshold: float | str = 0.5,
        bank: str | None = None,
        consecutive: int | str = 3,
        level: str = "critical",
        cooldown: int | str = 32,
        window: int | str | None = 5,
        release: float | str | None = None,
        action: str = "warn",
        system: str | None = None,
        steer: str | None = None,
        call: Callable[[Alarm], object] | None = None,
    ) -> None:
        """Take the rule; numbers may be strings, as the command line hands them on.

        Args:
            labels: signs of trouble, joined by ``+``; those that a bank has count.
            counter: the label that counts against them; a bank may be without.
            threshold: lowest value that counts, between 0 and 1.
            bank: the bank to watch; without one, every bank that has any of the labels.
            consecutive: reply tokens that must count.
            level: ``watch``, ``warning`` or ``critical``.
            cooldown: reply tokens after an alarm in which there is no other.
            window: reply tokens among which they must be.
            release: value below which it must fall before there is another alarm.
            action: what is done about an alarm: ``log``, ``warn``, ``webhook`` or ``stop``, several
                joined by ``+``.
            system: a system prompt for the next turn.
            steer: what is added until the turn's end, as in ``joy:4``, or ``joy:4@5`` at layer 5.
            call: a function that is called with each alarm.

        Raises:
            ValueError: for an option that cannot be used.
        """
        self.labels = tuple(labels.split("+"))
        if not all(self.labels) or len(set(self.labels)) < len(self.labels):
            raise refusal(NAME, "labels", "distinct labels joined by +", labels)
        self.counter = counter
        self.bank = bank
        self.level = level_of(NAME, level)
        self._counting = Counting(NAME, threshold, consecutive, window, cooldown, release)
        self._reaction = Reaction(NAME, action, system, steer, call)
        self.can_wait = self._reaction.only_logs
        self._watched: dict[str, _Watched] = {}
        """By bank: those of the labels that it has."""

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Find the banks that have any of the labels.

        Raises:
            ValueError: if none has, or one that was named is in no bank; it lists those that there
                are.
        """
        self._counting.forget_all()
        banks = banks_of(session, self.bank)
        known = dict.fromkeys(label for bank in banks for label in bank.labels)
        # Of the labels that nobody named, a bank may have some; one that was named is meant.
        named = () if self.labels == TROUBLE else self.labels
        for label in (*named, *(() if self.counter == CALM else (self.counter,))):
            if label not in known:
                raise ValueError(
                    f"No bank here has the label {clean_line(label)!r}; the labels are: "
                    f"{choices(label, known)}"
                )
        watched = {bank.name: self._watched_of(bank) for bank in banks}
        self._watched = {name: found for name, found in watched.items() if found.labels}
        if not self._watched:
            raise ValueError(
                f"No bank here has any of the labels {', '.join(map(clean_line, self.labels))}; "
                f"there are: {', '.join(map(clean_line, known))}. Name some of them: "
                "early-warning:labels=anger+fear,counter=joy."
            )
        self._reaction.check(session)

    @hookimpl
    def judge(self, score: TokenScore) -> Alarm | None:
        """Count the token; raise an alarm where it is due."""
        watched = self._watched.get(score.bank)
        if watched is None or score.offset is None:
            return None
        values = score.scores.array.tolist()
        value = sum(watched.take(values))
        if watched.counter is not None:
            value -= values[watched.counter]
        if not self._counting.due(key_of(score), score.offset, (value,)):
            return None
        less = "" if watched.counter is None else f" less {self.counter}"
        return self._reaction.raise_(
            rule=f"{' + '.join(watched.labels)}{less} {self._counting.told}",
            label=max(watched.labels, key=lambda label: score.scores[label]),
            level=self.level,
            score=value,
            threshold=self._counting.threshold,
            bank=score.bank,
            turn=score.turn,
            sequence=score.sequence,
            offset=score.offset,
        )

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Forget what was counted for this row."""
        self._counting.forget(turn)

    @hookimpl
    def session_finished(self) -> None:
        """Forget everything."""
        self._counting.forget_all()

    def _watched_of(self, bank: BankInfo) -> _Watched:
        labels = tuple(label for label in self.labels if label in bank.labels)
        return _Watched(
            labels,
            taking([bank.labels.index(label) for label in labels]),
            bank.labels.index(self.counter) if self.counter in bank.labels else None,
        )
