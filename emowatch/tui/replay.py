"""The screen behind ``emowatch replay``: a stored conversation that speaks by itself."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from emowatch.tui.app import ChatApp
from emowatch.tui.help import KEYS
from emowatch.tui.recorded import TraceSource


class ReplayApp(ChatApp):
    """Plays one turn after the other; Esc goes on to the next."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Next turn", id="turn.cancel", key_display="esc"),
    ]

    help_keys = tuple(
        (key, "go on to the next turn" if key == "Esc" else what)
        for key, what in KEYS
        if key not in ("Enter", "Ctrl+N")
    )

    def __init__(self, source: TraceSource, *, notes: tuple[str, ...] = ()) -> None:
        """Take the stored session."""
        super().__init__(source, title="emowatch replay", notes=notes)
        self._left = source.turns
        self.prompt.disabled = True
        self.prompt.placeholder = "Nothing can be said to a stored session. Ctrl+Q quits."

    async def go_on(self) -> None:
        """Play the next turn."""
        if self._left:
            await self.send(f"turn {self._left[0]}")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer no new chat: there is only this one."""
        return False if action == "new_chat" else super().check_action(action, parameters)
