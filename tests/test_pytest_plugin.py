"""The fixture for pytest, run by pytest itself in a folder of somebody's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from emowatch.conformance.checks import RECORDED

ROOT = Path(__file__).parents[1]
TESTS = f"""
from emowatch import Trace

def test_holds(emowatch_trace):
    emowatch_trace({str(RECORDED)!r}).must("turns() == 4 and max(joy) <= 1")

def test_fails(emowatch_trace):
    trace = Trace.load({str(RECORDED)!r})
    emowatch_trace(trace).must("turns() == 5", bank="demo-ekman7")
"""


def test_a_failed_expression_fails_the_test_with_what_it_came_to(tmp_path: Path) -> None:
    """And a passing run loads neither torch nor anything heavy."""
    (tmp_path / "test_mine.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        "import sys\n\ndef pytest_sessionfinish():\n"
        "    assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "emowatch.pytest_plugin"],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "FAILED  turns() == 5" in done.stdout
    assert "turns() is 4" in done.stdout
    assert "INTERNALERROR" not in done.stdout
