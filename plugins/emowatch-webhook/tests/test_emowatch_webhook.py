"""Received webhooks: signed, retried, counted, without a text, and never in the model's way."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from emowatch_webhook import SECRET, Webhook, signature

from emowatch.conformance import check_plugin, recorded_trace
from emowatch.dispatch import Dispatcher
from emowatch.plugins import make_plugin_manager
from emowatch.replaying import replay
from emowatch.trace import Trace

KEY = bytes(range(32))


class Receiver:
    """A real server on this machine, which answers as it is told to."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        """Status codes of the next answers; 200 when there are none left."""
        self.hang = threading.Event()
        self.hang.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.hang.wait(20)
                receiver.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("location", "http://127.0.0.1:9/")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.received]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Run a receiver, with the secret that it shares with the plugin."""
    monkeypatch.setenv(SECRET, "whsec_" + base64.b64encode(KEY).decode())
    made = Receiver()
    yield made
    made.hang.set()
    made.server.shutdown()
    made.server.server_close()


def run(plugin: Webhook, trace: Trace | None = None) -> Dispatcher:
    """Replay the recorded session, with its alarms, and wait for the queue."""
    known = trace or recorded_trace()
    alarm = ("threshold-alarm", {"threshold": 0.4, "consecutive": 2})
    plugins = Dispatcher(make_plugin_manager([plugin, alarm]))
    replay(known, plugins)
    plugins.flush(known.session, 30)
    return plugins


def test_every_alarm_and_turn_arrives_once_and_signed(receiver: Receiver) -> None:
    """The receiver can tell that it comes from us and was not changed on the way."""
    trace = recorded_trace()
    plugin = Webhook(receiver.url, events="alarm+turn")
    run(plugin)
    kinds = [body["type"] for body in receiver.bodies]
    assert kinds.count("emowatch.alarm.raised") == len(trace.alarms) > 0
    assert kinds.count("emowatch.turn.finished") == len(trace.turns) > 0
    assert (plugin.delivered, plugin.lost) == (len(kinds), 0)
    ids = set()
    for headers, body in receiver.received:
        number, stamp = headers["webhook-id"], int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == f"v1,{signature(KEY, number, stamp, body)}"
        assert abs(time.time() - stamp) < 60
        ids.add(number)
    assert len(ids) == len(kinds)


def test_alarms_are_sent_whose_rule_asks_for_it(receiver: Receiver) -> None:
    """`events=asked` leaves the choice to the rules."""
    trace = recorded_trace()
    rule = {"threshold": 0.4, "consecutive": 2}
    asking = ("threshold-alarm", {**rule, "label": "sadness", "action": "webhook"})
    plugin = Webhook(receiver.url, events="asked")
    plugins = Dispatcher(make_plugin_manager([plugin, asking, ("spike-alarm", {"rise": 0.05})]))
    assert replay(trace, plugins).alarms
    plugins.flush(trace.session, 30)
    assert receiver.bodies
    assert {body["data"]["label"] for body in receiver.bodies} == {"sadness"}
    assert {tuple(body["data"]["actions"]) for body in receiver.bodies} == {("webhook",)}


def test_no_text_is_sent(receiver: Receiver) -> None:
    """Nor token ids, which would give it back."""
    from dataclasses import replace

    trace = recorded_trace()
    trace.turns = [replace(turn, text="a canary", token_ids=(90210,)) for turn in trace.turns]
    run(Webhook(receiver.url, events="turn"), trace)
    sent = b"".join(body for _, body in receiver.received)
    assert b"canary" not in sent and b"90210" not in sent
    assert b"mean_scores" in sent


def test_a_server_that_is_busy_is_asked_again_and_gets_the_same_message(
    receiver: Receiver,
) -> None:
    """Under the same id, so that it can tell."""
    receiver.answers = [503, 429, 200]
    plugin = Webhook(receiver.url)
    run(plugin)
    first = [headers["webhook-id"] for headers, _ in receiver.received[:3]]
    assert len(set(first)) == 1
    assert plugin.lost == 0


def test_a_refusal_is_final_counted_and_told_once(
    receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong address or secret is not hammered, and a redirect is not followed."""
    alarms = len(recorded_trace().alarms)
    receiver.answers = [401, 302, 404, *[401] * alarms]
    plugin = Webhook(receiver.url)
    plugins = run(plugin)
    assert len(receiver.received) == alarms
    assert (plugin.delivered, plugin.lost) == (0, alarms)
    told = capsys.readouterr().err
    assert told.count("could not be delivered") == 1
    assert f"webhook: {alarms} events were lost" in told
    assert not plugins.errors  # the next session may have better luck


def test_a_server_that_hangs_keeps_nobody_waiting(receiver: Receiver) -> None:
    """The session goes on and ends; what waits is counted."""
    receiver.hang.clear()
    trace = recorded_trace()
    alarm = ("threshold-alarm", {"threshold": 0.4, "consecutive": 2})
    plugins = Dispatcher(make_plugin_manager([Webhook(receiver.url), alarm]))
    started = time.monotonic()
    replay(trace, plugins)
    assert time.monotonic() - started < 5
    assert not plugins.flush(trace.session, 0.2)
    counts = plugins.counts["Webhook"]
    assert counts.pending > 0
    assert counts.received == counts.written + counts.dropped + counts.pending
    receiver.hang.set()


def test_it_keeps_the_contract(receiver: Receiver) -> None:
    """Hostile values too: what is no number is null, and control characters are gone."""
    checks = check_plugin(lambda: Webhook(receiver.url, events="alarm+turn"))
    assert [check for check in checks if not check.passed] == []
    assert receiver.bodies
    sent = b"".join(body for _, body in receiver.received).decode()
    assert "\\u001b" not in sent and "NaN" not in sent


@pytest.mark.parametrize(
    "url", ["", "example.org", "http://example.org/x", "ftp://127.0.0.1/", "https://", "file:///x"]
)
def test_an_address_that_would_send_in_the_clear_is_refused(url: str, receiver: Receiver) -> None:
    """A signature hides nothing."""
    with pytest.raises(ValueError, match="https address"):
        Webhook(url)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "not base64!"])
def test_without_a_secret_it_does_not_start(
    secret: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence says where to put it, and does not repeat it."""
    monkeypatch.setenv(SECRET, secret)
    with pytest.raises(ValueError, match=SECRET) as caught:
        Webhook(receiver.url)
    assert not secret or secret not in str(caught.value).replace("whsec_ and", "")


def test_an_unknown_event_is_refused(receiver: Receiver) -> None:
    """With those there are."""
    with pytest.raises(ValueError, match="alarm or asked or turn"):
        Webhook(receiver.url, events="alarms")
