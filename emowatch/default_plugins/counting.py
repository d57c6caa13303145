"""When a value has stayed high long enough: n of the last m tokens, with a pause and a release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from emowatch.default_plugins.rules import Key, counted, fraction, refusal, shown, whole
from emowatch.records import Turn


@dataclass(slots=True)
class _Row:
    """What was counted of one row and bank; labels by their place."""

    marks: list[int]
    """Of each label a bit for each token of the window, the newest lowest: whether it was at or
    above the threshold."""
    quiet_until: dict[int, int] = field(default_factory=dict)
    """First offset that may raise again."""
    held: set[int] = field(default_factory=set)
    """What has raised an alarm and not fallen below `release` since."""
    is_busy: bool = False
    """Whether a token below the threshold changes anything."""


class Counting:
    """Counts apart what has another key, and says when an alarm is due."""

    def __init__(
        self,
        plugin: str,
        threshold: float | str,
        consecutive: int | str,
        window: int | str | None,
        cooldown: int | str,
        release: float | str | None,
    ) -> None:
        """Take the options of the plugin, as strings or numbers.

        Raises:
            ValueError: for one that cannot be used.
        """
        self.threshold = fraction(plugin, "threshold", threshold)
        self.consecutive = whole(plugin, "consecutive", consecutive, least=1)
        self.cooldown = whole(plugin, "cooldown", cooldown, least=0)
        self.window = (
            self.consecutive if window is None else whole(plugin, "window", window, least=1)
        )
        if self.window < self.consecutive:
            raise refusal(
                plugin, "window", f"{self.consecutive} tokens (consecutive) or more", window
            )
        self.release = None if release is None else fraction(plugin, "release", release)
        if self.release is not None and self.release > self.threshold:
            raise refusal(
                plugin, "release", f"the threshold, {shown(self.threshold)}, or less", release
            )
        self._rows: dict[Key, _Row] = {}

    @property
    def told(self) -> str:
        """The rule in words, without what it is about."""
        among = f"{self.consecutive} of " if self.window > self.consecutive else ""
        return f"at or above {shown(self.threshold)} for {among}{counted(self.window)}"

    def due(self, key: Key, offset: int, values: Sequence[float]) -> Sequence[int]:
        """Count one token with a value for each label; give the places of those that raise an
        alarm. NaN does not count."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row([0] * len(values))
        if max(values) < self.threshold and not row.is_busy:  # as at nearly every token
            return ()
        high = [place for place, value in enumerate(values) if value >= self.threshold]
        return self._count(row, high, offset, values)

    def _count(
        self, row: _Row, high: Sequence[int], offset: int, values: Sequence[float]
    ) -> Sequence[int]:
        window = (1 << self.window) - 1
        row.marks = [(marks << 1) & window for marks in row.marks]
        for place in high:
            row.marks[place] |= 1
        if self.release is not None:
            row.held = {place for place in row.held if not values[place] < self.release}
        due = [
            place
            for place in high
            if row.marks[place].bit_count() >= self.consecutive
            and place not in row.held
            and offset >= row.quiet_until.get(place, 0)
        ]
        for place in due:
            row.quiet_until[place] = offset + 1 + self.cooldown
            if self.release is not None:
                row.held.add(place)
        row.is_busy = any(row.marks) or bool(row.held)
        return due

    def forget(self, turn: Turn) -> None:
        """Forget what was counted for a row."""
        row = (turn.index, turn.sequence)
        for key in [key for key in self._rows if key[:2] == row]:
            del self._rows[key]

    def forget_all(self) -> None:
        """Forget everything."""
        self._rows.clear()
