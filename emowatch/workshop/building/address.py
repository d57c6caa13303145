"""Addresses of endpoints: what can be used, and where a key may go."""

from __future__ import annotations

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


def is_private(url: str) -> bool:
    """Tell whether what is sent there can be read by nobody on the way."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
