"""What options share, where no command shows it from outside."""

from __future__ import annotations

import pytest

from emowatch.cli import options


def test_what_an_earlier_run_did_counts_for_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a run that goes on seems to be done in a moment, and then is not."""
    options.progress("reading", 9_000, 10_000)
    bar = options._BARS["reading"]
    assert (bar.n, bar.initial) == (9_000, 9_000)
    options.progress("reading", 9_500, 10_000)
    assert bar.n - bar.initial == 500
    options.progress("reading", 10_000, 10_000)
    assert "reading" not in options._BARS
    assert "10.0k/10.0k" in capsys.readouterr().err
