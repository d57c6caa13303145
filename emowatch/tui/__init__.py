"""The screen behind ``emowatch chat`` and ``replay``: a conversation beside the live scores of its
replies.

It draws and asks; it computes nothing. Textual is imported when the screen opens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emowatch.trace import Trace
    from emowatch.tui.source import ReplySource

__all__ = ["run_chat", "run_replay"]


def run_chat(source: ReplySource, *, notes: Sequence[str] = ()) -> int:
    """Chat on the whole terminal until the user quits, and return the exit code.

    `notes` were said on stderr before, which the screen now covers; they are shown on it.
    """
    from emowatch.tui.app import ChatApp  # textual takes 0.3 s, and only this needs it

    app = ChatApp(source, notes=notes)
    with _quiet("transformers"):
        app.run()
    return app.return_code or 0


def run_replay(
    trace: Trace, *, row: int = 0, speed: float | None = None, notes: tuple[str, ...] = ()
) -> int:
    """Show a stored session on the whole terminal until the user quits; return the exit code."""
    from emowatch.tui.recorded import TraceSource
    from emowatch.tui.replay import ReplayApp  # textual takes 0.3 s, and only this needs it

    app = ReplayApp(TraceSource(trace, row, speed), notes=notes)
    app.run()
    return app.return_code or 0


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Keep a library's warnings off the screen: its log writes past Textual to the terminal."""
    log = logging.getLogger(library)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
