"""When a value has stayed high long enough: n of the last m tokens, with a pause and a release."""

from __future__ import annotations

from collections import deque

from emowatch.default_plugins.rules import Key, counted, fraction, refusal, shown, whole
from emowatch.records import Turn


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
        self._counted: dict[Key, deque[bool]] = {}
        """Whether each of the last tokens was at or above the threshold."""
        self._quiet_until: dict[Key, int] = {}
        """First offset that may raise again."""
        self._held: set[Key] = set()
        """What has raised an alarm and not fallen below `release` since."""

    @property
    def told(self) -> str:
        """The rule in words, without what it is about."""
        among = f"{self.consecutive} of " if self.window > self.consecutive else ""
        return f"at or above {shown(self.threshold)} for {among}{counted(self.window)}"

    def is_due(self, key: Key, offset: int, value: float) -> bool:
        """Count one token; tell whether it raises an alarm. NaN does not count."""
        last = self._counted.get(key)
        if last is None:
            last = self._counted[key] = deque(maxlen=self.window)
        last.append(value >= self.threshold)
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

    def forget(self, turn: Turn) -> None:
        """Forget what was counted for a row."""
        row = (turn.index, turn.sequence)
        for kept in (self._counted, self._quiet_until):
            for key in [key for key in kept if key[:2] == row]:
                del kept[key]
        self._held = {key for key in self._held if key[:2] != row}

    def forget_all(self) -> None:
        """Forget everything."""
        self._counted.clear()
        self._quiet_until.clear()
        self._held.clear()
