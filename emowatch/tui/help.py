"""The help screen: keys, and what the scores are and are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

KEYS = (
    ("Enter", "send the message"),
    ("Esc", "stop the reply; its text stays (also Ctrl+C)"),
    ("Ctrl+N", "begin a new chat"),
    ("Ctrl+T", "show or hide the traces"),
    ("F2", "mark changes of tone by signs before the words"),
    ("PgUp PgDn", "scroll the conversation"),
    ("Ctrl+P", "all commands, themes"),
    ("Ctrl+Q", "quit"),
    ("", "Esc closes this page"),
)
ABOUT = (
    "Before each token is written, the model has an inner state, and small probe heads read "
    "scores from it: 0.00 to 1.00 for each label. The traces show them, newest at the right, and "
    "each piece of text takes the colour of its highest score. Where the bank's own test found "
    "nothing above chance, often at the first token, the text keeps the colour of the screen. "
    "Signs, by F2, say the same without colour: the underlined letters of the labels.",
    "Before labels that are plausible beside the leading one stands a •, where the bank has label "
    "sets. Where a state is unlike those that a bank was calibrated on it abstains: the traces "
    "show a ·, and the text no colour.",
    "The scores describe the model: the tone of its reply, or what it made of your message. "
    "They say nothing certain about a person.",
)


class HelpScreen(ModalScreen[None]):
    """Keys and meaning, over the conversation."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen #help {
        width: 100%; max-width: 64; height: auto; max-height: 100%;
        padding: 1 2; background: $surface; border: round $primary;
    }
    HelpScreen Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q", "dismiss", "Close", id="help.close"),
    ]

    def __init__(self, keys: Sequence[tuple[str, str]] = KEYS) -> None:
        """Take the keys with what they do."""
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        """Write it."""
        width = max(len(key) for key, _ in self._keys)
        rows = [
            Content.assemble((key.ljust(width + 2), "bold"), (what, "$foreground-muted"))
            for key, what in self._keys
        ]
        with VerticalScroll(id="help"):
            yield Static(Content("\n").join(rows), markup=False)
            for paragraph in ABOUT:
                yield Static(Content(f"\n{paragraph}"), markup=False)
