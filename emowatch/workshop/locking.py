"""Keep two runs out of one folder.

The lock is the operating system's (``flock``): it goes with its process, a ``kill -9`` included,
so a lock file that is left behind locks nothing. There is none on Windows, nor on a file system
that knows no locks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emowatch.errors import RetryableError, TrainingError
from emowatch.text import clean_line

if sys.platform != "win32":
    import fcntl

LOCK = ".emowatch-lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder` for this run; it is made if it is not there.

    Raises:
        RetryableError: if another run holds it.
        TrainingError: if the folder cannot be written to.
    """
    shown = clean_line(str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = _hold(folder / LOCK)
    except BlockingIOError as error:
        raise RetryableError(
            f"Could not write to {shown!r}: another run is writing there. Wait until it has ended "
            "and run the same command again, or choose another folder."
        ) from error
    except OSError as error:
        raise TrainingError(
            f"Could not write to {shown!r}: {error.strerror}. Choose another folder."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()  # before it is let go, so that it is ours
        os.close(held)


def _hold(path: Path) -> int:
    """Open and lock a file; give its descriptor.

    Raises:
        BlockingIOError: if another holds it.
    """
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if sys.platform == "win32":
            return held
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            raise
        except OSError:  # a file system without locks
            return held
        # Whoever held it may have removed it between the two calls: then another is needed.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held), path.stat()):
                return held
        os.close(held)
