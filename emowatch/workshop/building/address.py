"""Addresses of endpoints: what can be used, and where a key may go."""

from __future__ import annotations

import os
from ipaddress import ip_address
from urllib.parse import urlsplit

from emowatch.errors import UsageError
from emowatch.text import clean_line


def checked_address(base_url: str) -> str:
    """Give the address of an API without its last slash.

    Raises:
        UsageError: for one that is no http address, or holds a password or a query, where keys
            would be shown in messages and files.
    """
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or not base_url.isprintable():
        raise UsageError(
            f"Could not use {clean_line(base_url, 100)!r} as --base-url: it is the http or https "
            "address of an API, such as http://127.0.0.1:8000/v1."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            f"Could not use the --base-url at {clean_line(host)!r}: it holds a user name, a query "
            "or a fragment. Give the address alone, and the key in a variable (--api-key-env)."
        )
    return base_url.rstrip("/")


def is_here(url: str) -> bool:
    """Tell whether an address is one of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def key_for(url: str, variable: str) -> str:
    """Give the key that a variable holds; empty where there is none, or none is named.

    Raises:
        UsageError: for a key that would go over the network in the clear, or is none. The
            message never holds it.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    shown = clean_line(variable)
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError(
            f"Could not use the key in {shown}: it holds characters that no key has, such as a "
            "space or the end of a line. Set it again."
        )
    if key and not (url.startswith("https:") or is_here(url)):
        raise UsageError(
            f"Could not use {clean_line(url)!r}: the key in {shown} would go over the network in "
            "the clear. Use https, or send none with --api-key-env ''."
        )
    return key
