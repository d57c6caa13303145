"""A real server on this machine that speaks OpenAI's chat completions, and fails as it is told."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-0123456789abcdef"
WORDS = {
    "anger": "furious",
    "disgust": "vile",
    "fear": "scared",
    "joy": "happy",
    "sadness": "mournful",
    "surprise": "whoa",
}
"""Words that tell the server's labeller what a text expresses."""
Fault = int | str
"""A status code, or ``cut`` in the middle of a body, ``drop`` before it, ``page`` of HTML,
``half`` of a JSON object, ``hang`` until `release`."""


def verdict(text: str) -> str:
    """Label a text by the first word that tells; neutral where there is none."""
    found = next((label for label, word in WORDS.items() if word in text.lower()), "neutral")
    told = {"is_english": "nicht" not in text, "has_emotion": found != "neutral", "emotion": found}
    return json.dumps(told)


def respond(prompt: str) -> str:
    """Answer the three built-in prompts as a careful model would."""
    inside = re.search(r"<text>\n(.*)\n</text>", prompt, re.DOTALL)
    if "<REWRITE>" in prompt and inside:
        emotion = re.search(r"expresses (\w+)", prompt)
        assert emotion is not None
        return f"<REWRITE>I am {WORDS[emotion[1]]}: {inside[1]}</REWRITE>"
    if "<generation>" in prompt:
        emotion, number = re.search(r"express (\w+)", prompt), zlib.crc32(prompt.encode())
        assert emotion is not None
        return f"<generation>So {WORDS[emotion[1]]} about number {number}!</generation>"
    assert inside is not None, prompt
    return verdict(inside[1])


class ProtocolServer:
    """The server, what it was asked, and what it is to do next.

    Attributes:
        bodies: of all requests that came, in order.
        arrivals: when they came, by `time.monotonic`.
        answered: prompts that were answered in full, in order.
        faults: what the next requests meet, one each; then all is well.
        retry_after: header of the next failures, if any.
        error: body of failures.
        most_at_once: requests that were under way together, at most.
    """

    def __init__(self, respond: Callable[[str], str] = respond, key: str | None = None) -> None:
        """Take what to answer to a prompt, and the only key that is let in."""
        self.respond, self.key = respond, key
        self.bodies: list[dict[str, Any]] = []
        self.arrivals: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.answered: list[str] = []
        self.faults: list[Fault] = []
        self.retry_after: str | None = None
        self.error: dict[str, Any] = {"error": {"message": "made to fail", "code": "made"}}
        self.usage = True
        self.most_at_once = 0
        self.delay_s = 0.0
        self.release = threading.Event()
        self._now = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.handle(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients that are killed leave their connections broken."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening; who asks now is refused the connection."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request, or fail."""
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        with self._lock:
            self.bodies.append(body)
            self.arrivals.append(time.monotonic())
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            fault = self.faults.pop(0) if self.faults else None
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self.release.wait(self.delay_s if fault != "hang" else 60)
            self._answer(request, body, fault)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(
        self, request: BaseHTTPRequestHandler, body: dict[str, Any], fault: Fault | None
    ) -> None:
        if request.path != "/v1/chat/completions":
            self._send(request, 404, b"not found")
            return
        if self.key and request.headers["authorization"] != f"Bearer {self.key}":
            self._send(request, 401, json.dumps(self.error).encode())
            return
        if isinstance(fault, int) and fault != 200:
            self._send(request, fault, json.dumps(self.error).encode())
            return
        prompt = body["messages"][-1]["content"]
        text = self.respond(prompt)
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": max(1, len(text) // 4)}
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        told: dict[str, Any] = {"object": "chat.completion", "choices": [choice]}
        whole = json.dumps(told | ({"usage": usage} if self.usage else {})).encode()
        if fault == "page":
            self._send(request, 200, b"<html><body>Please log in</body></html>")
        elif fault == "half":
            self._send(request, 200, whole[: len(whole) // 2])
        elif fault in ("cut", "drop"):
            if fault == "cut":
                request.send_response(200)
                request.send_header("content-length", str(len(whole)))
                request.end_headers()
                request.wfile.write(whole[: len(whole) // 2])
                request.wfile.flush()
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
        else:
            with self._lock:
                self.answered.append(prompt)
            self._send(request, 200, whole)

    def _send(self, request: BaseHTTPRequestHandler, status: int, content: bytes) -> None:
        request.send_response(status)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(content)))
        if status >= 300 and self.retry_after is not None:
            request.send_header("retry-after", self.retry_after)
        request.end_headers()
        request.wfile.write(content)
