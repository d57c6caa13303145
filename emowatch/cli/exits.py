"""Exit codes, and how an error is told."""

from __future__ import annotations

import sys
from enum import IntEnum

from emowatch.errors import EmowatchError
from emowatch.text import clean, clean_line


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
    READER_GONE = 141
    """Who read stdout or stderr has left, as `head` does; shells say the same of other tools."""


def report_error(error: EmowatchError) -> Exit:
    """Write one sentence to stderr and give the exit code."""
    sys.stderr.write(f"emowatch: {clean(str(error))}\n")
    return Exit(error.exit_code)


def report_system_error(error: OSError) -> Exit:
    """Say which file or stream failed, and how; such as a disk that is full."""
    what = f"the file {str(error.filename)!r}" if error.filename is not None else "the output"
    why = error.strerror or "no reason given"
    sys.stderr.write(f"emowatch: Could not read or write {clean_line(what)}: {clean_line(why)}.\n")
    return Exit.FAILED
