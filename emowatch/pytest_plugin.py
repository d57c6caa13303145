"""A fixture for pytest: hold a recorded session to an expression.

    def test_it_stays_calm(emowatch_trace):
        emowatch_trace("run.jsonl").must("max(anger) < .6 and half_life(fear) < 40")

pytest imports this file in every run, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from emowatch.trace import Trace


class HeldTrace:
    """A trace that must be as expressions say."""

    def __init__(self, trace: Trace) -> None:
        """Take the trace."""
        self.trace = trace

    def must(self, expression: str, *, bank: str | None = None) -> None:
        """Fail the test unless the expression holds, and say what each part came to."""
        __tracebackhide__ = True
        from emowatch.assertions import judge_trace

        verdict = judge_trace(self.trace, expression, bank=bank)
        if not verdict.holds:
            pytest.fail(f"{expression}\n{verdict.told}", pytrace=False)


@pytest.fixture
def emowatch_trace() -> Callable[[str | Path | Trace], HeldTrace]:
    """Give a function that opens a trace, or takes one that is open."""
    from emowatch.trace import Trace

    def hold(source: str | Path | Trace) -> HeldTrace:
        return HeldTrace(source if isinstance(source, Trace) else Trace.load(source))

    return hold
