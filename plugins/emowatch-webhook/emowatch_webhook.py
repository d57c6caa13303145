"""Send alarms and ends of replies to a web address, signed as Standard Webhooks has it.

https://www.standardwebhooks.com: headers ``webhook-id``, ``webhook-timestamp`` and
``webhook-signature``, the last ``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``. No
text of a reply is ever sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import secrets
import sys
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx
import stamina

from emowatch import Alarm, Session, Turn, hookimpl
from emowatch.text import clean_line

SECRET = "EMOWATCH_WEBHOOK_SECRET"
"""Variable that holds the secret: on a command line everybody on the machine could read it."""
PREFIX = "whsec_"
EVENTS = ("alarm", "asked", "turn")


class Webhook:
    """Sends events from a thread of its own; the model never waits for the network."""

    queued = True

    def __init__(
        self,
        url: str,
        events: str = "alarm",
        timeout: float | str = 10.0,
        attempts: int | str = 5,
    ) -> None:
        """Take where to send what.

        Args:
            url: an https address, or an http one of this machine.
            events: ``alarm`` for every alarm, ``asked`` for those whose rule has the action
                ``webhook``, ``turn`` for ends of replies; several joined by ``+``.
            timeout: seconds for one try.
            attempts: tries for one event, each after a longer wait than the one before.

        Raises:
            ValueError: for an address that cannot be used, an unknown event, or no secret.
        """
        self.url = _address(url)
        self.events = tuple(events.split("+"))
        unknown = [event for event in self.events if event not in EVENTS]
        if unknown:
            raise ValueError(
                f"The option 'events' of webhook must be {' or '.join(EVENTS)}, or several joined "
                f"by +, got {clean_line(repr(events), 60)}."
            )
        self._key = _secret()
        self._attempts = int(attempts)
        self._client = httpx.Client(timeout=float(timeout), follow_redirects=False)
        # Each try is logged as a warning; without a handler Python prints those on stderr.
        logging.getLogger("stamina").addHandler(logging.NullHandler())
        self.delivered = 0
        self.lost = 0
        """Events that no try brought over."""

    @hookimpl
    def alarm_raised(self, alarm: Alarm, session: Session) -> None:
        """Send an alarm."""
        asked = "asked" in self.events and "webhook" in alarm.actions
        if "alarm" in self.events or asked:
            self._send("emowatch.alarm.raised", session, alarm.fields())

    @hookimpl
    def turn_finished(self, turn: Turn, session: Session) -> None:
        """Send how a reply ended, without its text."""
        if "turn" not in self.events:
            return
        means = {bank: dict(scores.items()) for bank, scores in turn.mean_scores.items()}
        self._send(
            "emowatch.turn.finished",
            session,
            {
                "turn": turn.index,
                "sequence": turn.sequence,
                "prompt_tokens": turn.prompt_tokens,
                "reply_tokens": turn.reply_tokens,
                "finish_reason": turn.finish_reason,
                "mean_scores": means,
            },
        )

    @hookimpl
    def session_finished(self) -> None:
        """Close the connection, and tell what was lost."""
        self._client.close()
        self._client = httpx.Client(timeout=self._client.timeout, follow_redirects=False)
        if self.lost:
            sys.stderr.write(f"webhook: {self.lost} events were lost, {self.delivered} delivered\n")

    def _send(self, kind: str, session: Session, data: dict[str, Any]) -> None:
        """Try to deliver one event; give up on it after the last try."""
        number = f"msg_{secrets.token_urlsafe(18)}"
        stamp = int(time.time())
        body = json.dumps(
            {
                "type": kind,
                "timestamp": datetime.fromtimestamp(stamp, UTC).isoformat(),
                "data": _plain({"session": session.id, "model": session.model, **data}),
            },
            allow_nan=False,
        ).encode()
        headers = {
            "content-type": "application/json",
            "webhook-id": number,
            "webhook-timestamp": str(stamp),
            "webhook-signature": f"v1,{signature(self._key, number, stamp, body)}",
        }
        try:
            for attempt in stamina.retry_context(
                on=_may_pass, attempts=self._attempts, timeout=60, wait_initial=0.2, wait_max=10
            ):
                with attempt:
                    self._client.post(self.url, content=body, headers=headers).raise_for_status()
        except httpx.HTTPError as error:
            if not self.lost:
                why = clean_line(str(error), 120) or type(error).__name__
                sys.stderr.write(f"webhook: an event could not be delivered: {why}\n")
            self.lost += 1
        else:
            self.delivered += 1


def signature(key: bytes, number: str, stamp: int, body: bytes) -> str:
    """Sign one message; the receiver does the same and compares."""
    signed = f"{number}.{stamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _may_pass(error: Exception) -> bool:
    """Tell whether another try may help: the network, a busy or a broken server."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 425, 429) or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


def _plain(value: Any) -> Any:
    """Make JSON of anything: what is no number is null, and text is cut and cleaned."""
    if isinstance(value, dict):
        return {clean_line(str(key), 80): _plain(one) for key, one in value.items()}
    if isinstance(value, float):
        return value if value - value == 0 else None
    return clean_line(value, 200) if isinstance(value, str) else value


def _address(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        return url
    if parts.scheme == "http" and _is_here(host):
        return url
    raise ValueError(
        f"The option 'url' of webhook must be an https address, or an http one of this machine, "
        f"got {clean_line(repr(url), 80)}."
    )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _secret() -> bytes:
    text = os.environ.get(SECRET, "")
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if len(key) < 24:
        raise ValueError(
            f"The plugin webhook signs what it sends: put a secret of 24 bytes or more into "
            f"{SECRET}, as {PREFIX} and its base64. Receivers need the same."
        )
    return key
