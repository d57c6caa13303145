"""What logs share: what of a reply they may hold (nothing, a keyed hash, or its text), and how they
spell scores.
"""

from __future__ import annotations

import hmac
import os
import secrets
import sys
import time
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import isfinite

from emowatch import __version__
from emowatch.config import home
from emowatch.text import clean_line

CONTENTS = ("none", "hash", "full")
KEY_BYTES = 32
DECIMALS = 7
"""Of a score."""
_ONE = f"%.{DECIMALS}f"


def check_content(plugin: str, content: str) -> str:
    """Give `content` back.

    Raises:
        ValueError: if it is none of `CONTENTS`.
    """
    if content not in CONTENTS:
        raise ValueError(
            f"The option 'content' of {plugin} must be {', '.join(CONTENTS[:-1])} or "
            f"{CONTENTS[-1]}, got {clean_line(repr(content), 60)}."
        )
    return content


def listed(values: Iterable[float]) -> str:
    """Write numbers as JSON, rounded to 7 decimals, as fine as float32 is near 1.

    What is no number becomes null.
    """
    numbers = tuple(values)
    told = _format(len(numbers)) % numbers
    if "n" in told:  # nan or inf
        told = ",".join(_ONE % v if isfinite(v) else "null" for v in numbers)
    return f"[{told}]"


@cache
def _format(count: int) -> str:
    """One format for all numbers of a token: for each by itself it takes three times as long."""
    return ",".join([_ONE] * count)


def keyed_hash(key: bytes, text: str) -> str:
    """Hash a text, whatever letters it holds."""
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def installation_key() -> bytes:
    """Return the key of this installation's hashes; the first who asks makes it.

    Raises:
        OSError: if it cannot be made or read.
        ValueError: if it is damaged.
    """
    folder = home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "key"
    try:
        with open(path, "xb", opener=open_private) as file:
            key = secrets.token_bytes(KEY_BYTES)
            file.write(key)
            return key
    except FileExistsError:
        pass
    for _ in range(50):  # another process may be between making and filling it
        key = path.read_bytes()
        if len(key) == KEY_BYTES:
            return key
        time.sleep(0.01)
    raise ValueError(
        f"The key {clean_line(str(path))!r} is damaged: it has {len(key)} bytes, not {KEY_BYTES}. "
        "Remove it; hashes made from now on will not match earlier ones."
    )


def open_private(path: str, flags: int) -> int:
    """Open a file that only its owner may read; an `opener` for `open`."""
    return os.open(path, flags, 0o600)


def versions() -> dict[str, str]:
    """List what made the numbers, without importing it."""
    found = {"emowatch": __version__, "python": sys.version.partition(" ")[0]}
    for package in ("torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
