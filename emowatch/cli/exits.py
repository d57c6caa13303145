"""Exit codes, and how an error is told."""

from __future__ import annotations

import sys
from enum import IntEnum

from emowatch.errors import EmowatchError
from emowatch.text import clean


class Exit(IntEnum):
    """What the exit status of ``emowatch`` means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """Usage, or a file that was refused."""
    RETRYABLE = 3
    ALARM = 4
    """An alarm was raised under ``--fail-on-alarm``."""
    INTERRUPTED = 130


def report_error(error: EmowatchError) -> Exit:
    """Write one sentence to stderr and give the exit code."""
    sys.stderr.write(f"emowatch: {clean(str(error))}\n")
    return Exit(error.exit_code)
