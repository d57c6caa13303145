"""The server of docs/serving.md: its code is taken from the page and run, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from tests.model.zoo import hook_count
from tests.streaming.talking import Forwards, Held, streams
from tests.streaming.ticking import until

PAGE = (Path(__file__).parent.parent.parent / "docs/serving.md").read_text(encoding="utf-8")


def code(name: str) -> str:
    """Give the code of the page below a mark."""
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def page(
    model: Any,
    tiny_tokenizer: PreTrainedTokenizerFast,
    bank: ProbeBank,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """Run the page's code with the tiny model in place of the demo model."""
    loaded = SimpleNamespace(model=model, tokenizer=tiny_tokenizer)
    monkeypatch.setattr(emowatch, "load_model", lambda: loaded)
    monkeypatch.setattr(emowatch, "load_bank", lambda name: bank)
    scope: dict[str, Any] = {"__name__": "server"}
    exec(compile(code("server"), "docs/serving.md", "exec"), scope)
    return scope


@pytest.fixture
def held(page: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Held:
    """Let the server's model say only what a test lets it, at most 200 tokens."""
    held, begin = Held(), emowatch.astream

    def astream(*args: Any, **options: Any) -> Any:
        return begin(*args, **options, logits_processor=[held])

    monkeypatch.setattr(emowatch, "astream", astream)
    return held


@contextlib.asynccontextmanager
async def serving(page: dict[str, Any]) -> AsyncIterator[int]:
    """Serve on a free port, and give it."""
    server = await asyncio.start_server(page["connected"], "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def post(port: int, message: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a message, as a browser does."""
    body = json.dumps({"message": message}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


async def answered(port: int, message: Any) -> str:
    """Give the whole response to a message."""
    reader, writer = await post(port, message)
    response = (await reader.read()).decode()
    writer.close()
    return response


async def test_each_token_is_an_event_with_its_scores(page: dict[str, Any], held: Held) -> None:
    """And the last one tells how it ended."""
    held.let()
    async with serving(page) as port:
        head, _, body = (await answered(port, "hello")).partition("\r\n\r\n")
    assert head == "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream"
    lines = body.removesuffix("\n\n").split("\n\n")
    tokens = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert len(tokens) == 200
    assert all(sum(token["scores"].values()) == pytest.approx(1) for token in tokens)
    assert lines[-1] == 'event: end\ndata: {"finish_reason": "length", "alarms": 0}'


async def test_a_message_that_is_refused_is_a_bad_request(page: dict[str, Any]) -> None:
    """The status is chosen after the prompt was looked at."""
    async with serving(page) as port:
        response = await answered(port, " ")
    assert response.startswith("HTTP/1.1 400 Bad Request")
    assert response.endswith("The user message is empty: nothing to say.")


async def test_a_client_that_hangs_up_stops_the_model_within_one_token(
    page: dict[str, Any], model: Any, held: Held
) -> None:
    """The model is held while the client goes, so that nothing hides behind a fast token."""
    hooks = hook_count(model)
    forwards = Forwards(model)
    async with serving(page) as port:
        _, writer = await post(port, "hello")
        await asyncio.to_thread(held.hold_at, 3)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)
        held.let()
        assert await until(lambda: not streams())
    assert forwards.begun <= 5
    assert hook_count(model) == hooks + 1


async def test_clients_are_answered_one_after_the_other(page: dict[str, Any], held: Held) -> None:
    """One that hangs up while it waits is not answered, and not in the way."""
    held.let(100_000)
    async with serving(page) as port:
        clients = [asyncio.create_task(answered(port, f"hello {n}")) for n in range(3)]
        _, writer = await post(port, "gone")
        writer.close()
        responses = await asyncio.gather(*clients)
    assert all("event: end" in response for response in responses)
    assert await until(lambda: not streams())


@pytest.mark.parametrize("version", ["2.3", "2.4"])
async def test_starlette_stops_the_model_when_the_client_goes(
    page: dict[str, Any], model: Any, held: Held, version: str
) -> None:
    """Both of its ways: it listens for the end, or meets it where it sends the next token."""
    exec(compile(code("starlette"), "docs/serving.md", "exec"), page)
    hooks = hook_count(model)
    sent: list[dict[str, Any]] = []
    gone = asyncio.Event()
    asked = iter([{"type": "http.request", "body": b'{"message": "hello"}'}])

    async def receive() -> Any:
        for message in asked:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if gone.is_set():
            raise OSError("the client is gone")
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": version},
        "method": "POST",
        "path": "/",
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    task = asyncio.create_task(page["app"](scope, receive, send))
    await asyncio.to_thread(held.hold_at, 3)
    assert await until(lambda: len(sent) == 4)  # the head and 3 tokens
    assert sent[0]["status"] == 200
    gone.set()
    while streams() and held.step < 100:
        held.let(1)
        await asyncio.sleep(0.05)  # for whatever has to be noticed
    assert not streams()
    assert held.step <= 10
    await asyncio.wait([task])
    task.exception()  # what it raises is between Starlette and its server
    assert hook_count(model) == hooks
