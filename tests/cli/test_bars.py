"""Progress bars: honest rates, and an interrupt that leaves nothing half made."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from emowatch.cli import bars


@pytest.mark.parametrize("on_terminal", [True, False])
def test_what_an_earlier_run_did_counts_for_no_rate(
    on_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a run that goes on seems to be done in a moment, and then is not."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    bars.progress("reading", 9_000, 10_000)
    bar = bars._BARS["reading"]
    assert (bar.n, bar.initial) == (9_000, 9_000)
    bars.progress("reading", 9_500, 10_000)
    assert bar.n - bar.initial == 500
    bars.progress("reading", 10_000, 10_000)
    assert "reading" not in bars._BARS
    assert "10.0k/10.0k" in capsys.readouterr().err


@pytest.mark.parametrize(("line_s", "lines"), [(0.0, 10), (3600.0, 1)])
def test_a_file_gets_few_plain_lines(
    line_s: float,
    lines: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bars are drawn ten times a second, and a log would keep each of them."""
    monkeypatch.setattr(bars, "LINE_S", line_s)
    for done in range(1001):
        bars.progress("reading", done, 1000)
    told = capsys.readouterr().err
    assert "\r" not in told and told.count("\n") == lines
    assert told.splitlines()[-1].startswith("reading: 100 %, 1000/1000 [")
    bars.progress("nothing", 0, 0)
    assert capsys.readouterr().err == ""


def test_a_log_tells_where_an_interrupted_run_stood(capsys: pytest.CaptureFixture[str]) -> None:
    """As the bar on a terminal does."""
    with pytest.raises(KeyboardInterrupt), bars.stoppable():
        bars.progress("reading", 0, 400)
        bars.progress("reading", 100, 400)
        raise KeyboardInterrupt
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("reading: 25 %, 100/400 [")
    assert told[1:] == ["", "What is finished is kept: the same command goes on from there."]


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
