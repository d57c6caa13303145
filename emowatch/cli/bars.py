"""Progress on stderr, and what Ctrl+C does while it is shown."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

_BARS: dict[str, Any] = {}


def progress(step: str, done: int, total: int) -> None:
    """Draw progress with rate and time left, on stderr.

    What was done before the first call is no work of this run: it counts for neither.
    """
    from tqdm import tqdm  # comes with transformers

    bar = _BARS.get(step)
    if bar is None:
        with _interrupt_put_off():  # tqdm prints a traceback for a bar that is half made
            bar = _BARS[step] = tqdm(
                total=total, initial=done, desc=step, file=sys.stderr, unit_scale=True
            )
    bar.update(done - bar.n)
    if done >= total:
        bar.close()
        del _BARS[step]


@contextmanager
def _interrupt_put_off() -> Iterator[None]:
    """Let Ctrl+C wait for the end of the block; it never comes to threads, nor where ignored."""
    usual = signal.getsignal(signal.SIGINT)
    in_thread = threading.current_thread() is not threading.main_thread()
    if in_thread or usual is not signal.default_int_handler:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if came:
        raise KeyboardInterrupt


@contextmanager
def stoppable(*, kept: bool = True) -> Iterator[None]:
    """End the bars at Ctrl+C and say that work which is `kept` is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        while _BARS:
            _BARS.popitem()[1].close()  # else drawn once more at the very end
        if kept:
            said = "\nWhat is finished is kept: the same command goes on from there."
            click.echo(said, err=True, nl=False)  # click ends the line
        raise
