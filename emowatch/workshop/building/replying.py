"""What a server replied: an answer, something that may pass, or something that will not."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from emowatch.errors import UsageError
from emowatch.text import clean_line
from emowatch.workshop.building.answering import Answer, RefusedPromptError
from emowatch.workshop.building.options import EndpointOptions

QUOTED = 200
"""Characters of a server's message in ours, at most."""
_MAY_PASS = (408, 409, 425, 429)
_MODERATED = ("content_filter", "content_policy_violation", "moderation")
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


class Passing(Exception):
    """A failure that may pass; never leaves the client."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        """Take what failed, and how long the server asks to wait."""
        super().__init__(clean_line(why, QUOTED).rstrip("."))
        self.retry_after_s = retry_after_s


def check_status(
    status: int,
    content: bytes,
    wait: float | None,
    options: EndpointOptions,
    *,
    has_key: bool,
) -> None:
    """Return for a status that promises an answer.

    Raises:
        Passing: for what may be tried again.
        RefusedPromptError: for what concerns this prompt alone.
        UsageError: for what concerns every prompt.
    """
    if status == 200:
        return
    place, variable = clean_line(options.base_url), clean_line(options.api_key_env)
    code, said = _error(content)
    quoted = f" It says: {said}" if said else ""
    if status == 403 and _is_moderated(content):
        raise RefusedPromptError(f"The server refused the prompt as harmful (403).{quoted}")
    if status in (401, 403):
        why = f"the key in {variable} is refused" if has_key else "it wants a key and got none"
        hint = "Put the right one into" if has_key else "Put one into"
        raise UsageError(
            f"Could not use {place!r}: {why} ({status}). {hint} {variable or 'a variable'}, or "
            f"name another variable with --api-key-env.{quoted}"
        )
    if status == 402 or code in _NO_CREDIT:
        raise UsageError(f"Could not use {place!r}: the account has no credit ({status}).{quoted}")
    if status == 404:
        raise UsageError(
            f"Could not use {place!r}: it knows no model {clean_line(options.model)!r}, or it is "
            f"not the address of an API, which mostly ends in /v1 (404).{quoted}"
        )
    if 300 <= status < 400:
        raise UsageError(
            f"Could not use {place!r}: it leads to another address ({status}), and a key is not "
            "carried along. Give that address with --base-url."
        )
    if status in _MAY_PASS or status >= 500:
        raise Passing(f"the server answered {status}{f', {said}' if said else ''}", wait)
    raise RefusedPromptError(f"The server refused the prompt ({status}).{quoted}")


def answer_of(content: bytes, *, prompt_characters: int) -> Answer:
    """Take a chat completion apart.

    Raises:
        Passing: for anything else, as a proxy's page.
    """
    try:
        found: Any = json.loads(content)
        choice = found["choices"][0]
        text = choice["message"]["content"] or ""  # null where it will not say
        usage = found.get("usage") or {}
        finish = choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        begins = content[:40].decode("utf-8", "replace")
        raise Passing(
            f"the server answered 200 with no chat completion (it begins {begins!r})"
        ) from error
    if not isinstance(text, str):
        raise Passing("the server answered 200 with a message that is no text")
    prompt, completion = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    is_counted = prompt is not None and completion is not None
    return Answer(
        text=text.encode("utf-8", "replace").decode(),  # JSON can hold halves of characters
        prompt_tokens=prompt if prompt is not None else max(1, prompt_characters // 4),
        completion_tokens=completion if completion is not None else max(1, len(text) // 4),
        is_cut=finish == "length",
        is_counted=is_counted,
    )


def _count(usage: object, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and 0 <= found < 1 << 40 else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds a server asks to wait: a number or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _is_moderated(content: bytes) -> bool:
    """Tell a refusal of what a prompt says from one of the key, by what OpenRouter and Azure send
    with it."""
    try:
        error = json.loads(content)["error"]
        metadata = error.get("metadata") or {}
        return error.get("code") in _MODERATED or bool({"reasons", "flagged_input"} & set(metadata))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def _error(content: bytes) -> tuple[str, str]:
    """Give the code and the message of an error's body, cleaned; empty where there is none."""
    try:
        found: Any = json.loads(content)
        error = found.get("error", found)
        if isinstance(error, str):
            return "", clean_line(error, QUOTED)
        code, said = error.get("code") or error.get("type"), error.get("message") or ""
        return str(code), clean_line(str(said), QUOTED)
    except (ValueError, AttributeError, RecursionError):
        return "", ""
