"""Progress bars: honest rates, and an interrupt that leaves nothing half made."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from emowatch.cli import bars


def test_what_an_earlier_run_did_counts_for_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a run that goes on seems to be done in a moment, and then is not."""
    bars.progress("reading", 9_000, 10_000)
    bar = bars._BARS["reading"]
    assert (bar.n, bar.initial) == (9_000, 9_000)
    bars.progress("reading", 9_500, 10_000)
    assert bar.n - bar.initial == 500
    bars.progress("reading", 10_000, 10_000)
    assert "reading" not in bars._BARS
    assert "10.0k/10.0k" in capsys.readouterr().err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl+C do what it does in a terminal, also where the tests run in the background."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_until_a_bar_is_whole() -> None:
    """Of a bar that is half made, tqdm's end prints a traceback."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), bars._interrupt_put_off():
        signal.raise_signal(signal.SIGINT)
        done.append("whole")
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with ThreadPoolExecutor() as pool:  # where no handler may be set
        pool.submit(bars.progress, "reading in a thread", 1, 1).result()
