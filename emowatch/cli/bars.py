"""Progress on stderr, and what Ctrl+C does while it is shown."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

LINE_S = 5.0
"""Where nobody watches a bar, a line of it is no sooner than this after the one before."""
SCALED = 10_000
"""From here on numbers are written short, as in 12.3k."""
_BARS: dict[str, Any] = {}


class _Lines:
    """A bar for a file or pipe: a plain line at each tenth of the way at most, and one at the end.

    Attributes:
        initial: what was done before it began.
        n: what is done.
    """

    def __init__(self, step: str, done: int, total: int) -> None:
        """Say nothing yet."""
        self.initial = self.n = self._said = done
        self._step, self._total = step, total
        self._begun = self._last = time.monotonic()

    def update(self, more: int) -> None:
        """Count, and write a line where a tenth was passed some time after the last line."""
        self.n += more
        if self.n >= self._total:
            return  # the end is told when it is closed
        passed = self.n * 10 // self._total - self._said * 10 // self._total
        if passed and time.monotonic() - self._last >= LINE_S:
            self._write()

    def close(self) -> None:
        """Write where it ended; nothing where there was nothing to do."""
        if self._total:
            self._write()

    def _write(self) -> None:
        from tqdm import tqdm

        self._said, self._last = self.n, time.monotonic()
        said = tqdm.format_meter(
            self.n,
            self._total,
            self._last - self._begun,
            prefix=self._step,
            unit_scale=self._total >= SCALED,
            initial=self.initial,
            bar_format="{desc}: {percentage:.0f} %, {n_fmt}/{total_fmt} "
            "[{elapsed}<{remaining}, {rate_fmt}]",
        )
        sys.stderr.write(f"{said}\n")


def progress(step: str, done: int, total: int) -> None:
    """Draw progress with rate and time left, on stderr; in few plain lines where that is a file.

    What was done before the first call is no work of this run: it counts for neither.
    """
    bar = _BARS.get(step)
    if bar is None:
        with _interrupt_put_off():  # tqdm prints a traceback for a bar that is half made
            bar = _BARS[step] = _new_bar(step, done, total)
    bar.update(done - bar.n)
    if done >= total:
        bar.close()
        del _BARS[step]


def _new_bar(step: str, done: int, total: int) -> Any:
    from tqdm import tqdm  # comes with transformers

    if not sys.stderr.isatty():
        return _Lines(step, done, total)
    return tqdm(total=total, initial=done, desc=step, file=sys.stderr, unit_scale=total >= SCALED)


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
