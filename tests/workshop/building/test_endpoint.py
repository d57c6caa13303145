"""The client of endpoints, against a real server on this machine that fails as it is told."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from emowatch.errors import EmowatchError, RetryableError, UsageError
from emowatch.workshop.building import Answer, Endpoint, EndpointOptions, RefusedPromptError
from tests.workshop.building.conftest import Connect
from tests.workshop.building.protocol_server import KEY, Fault, ProtocolServer

HELLO = ({"role": "user", "content": "<text>\nI am happy\n</text>"},)


def failing(error: type[EmowatchError], client: Endpoint) -> str:
    """Give the message of the error that asking ends with."""
    with pytest.raises(error) as caught:
        client.complete(HELLO)
    return str(caught.value)


# What may pass


@pytest.mark.parametrize("fault", [408, 429, 500, 502, 503, "cut", "drop", "page", "half"])
def test_what_may_pass_is_tried_again(
    server: ProtocolServer, connect: Connect, fault: Fault
) -> None:
    """Hours of asking must not end because one answer was lost on the way."""
    server.faults = [fault, fault]
    answer = connect().complete(HELLO)
    assert '"joy"' in answer.text
    assert len(server.bodies) == 3
    assert answer.prompt_tokens > 0 and answer.is_counted


def test_attempts_end_and_the_last_failure_is_told(
    server: ProtocolServer, connect: Connect
) -> None:
    """A server that is broken for good is told as it failed, and may be asked later."""
    server.faults = [503] * 9
    message = failing(RetryableError, connect(attempts=3))
    assert "attempt 3 of 3" in message and "the server answered 503, made to fail" in message
    assert len(server.bodies) == 3


def test_a_server_that_is_not_there_may_be_there_later(connect: Connect) -> None:
    """Exit code 3 tells scripts to try again."""
    client = connect(base_url="http://127.0.0.1:9/v1", attempts=2)
    message = failing(RetryableError, client)
    assert "http://127.0.0.1:9/v1" in message and "refused" in message


def test_the_attempts_of_one_prompt_share_a_number(
    server: ProtocolServer, connect: Connect
) -> None:
    """Servers that know idempotency keys then answer, and bill, only once."""
    server.faults = [500]
    client = connect()
    client.complete(HELLO)
    client.complete(HELLO)
    numbers = [headers["idempotency-key"] for headers in server.headers]
    assert numbers[0] == numbers[1] != numbers[2]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_wait_that_a_server_asks_for_is_kept(
    server: ProtocolServer, connect: Connect, form: str
) -> None:
    """Asking sooner is what gets clients shut out."""
    server.faults = [429]
    server.retry_after = "1" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)
    connect().complete(HELLO)
    first, second = server.arrivals
    assert second - first >= (1 if form == "seconds" else 1.5)  # a date has whole seconds


def test_the_wait_is_kept_by_requests_that_had_their_turn_before_it(
    server: ProtocolServer, connect: Connect
) -> None:
    """Under a rate limit most of them wait for a turn when the first is refused."""
    server.faults, server.retry_after = [429], "1"
    client = connect(concurrency=6, requests_per_minute=240)
    answers = dict(client.complete_many((str(n), HELLO) for n in range(6)))
    assert all(isinstance(answer, Answer) for answer in answers.values())
    first, *others = server.arrivals
    assert len(others) == 6 and min(others) - first >= 1
    assert max(others) - min(others) >= 5 * 0.25 - 0.1  # still spaced


def test_a_wait_of_hours_is_not_waited_for(server: ProtocolServer, connect: Connect) -> None:
    """A daily limit is better told than slept through."""
    server.faults, server.retry_after = [429], "7200"
    assert "asks to wait 7200 s" in failing(RetryableError, connect())


# What will not pass


def test_a_wrong_key_is_told_at_once_and_never_shown(
    server: ProtocolServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the server says it back."""
    server.key = "another"
    server.error = {"error": {"message": f"Incorrect API key provided: {KEY}."}}
    monkeypatch.setenv("MY_KEY", KEY)
    client = connect(api_key_env="MY_KEY")
    message = failing(UsageError, client)
    assert "the key in MY_KEY is refused (401)" in message and "Incorrect API key" in message
    assert KEY not in message and KEY not in repr(client) and KEY not in str(client.identity)
    assert len(server.bodies) == 1
    assert "it wants a key and got none" in failing(UsageError, connect(api_key_env="NOT_SET"))


@pytest.mark.parametrize("before", range(120, 215, 5))
def test_a_key_that_is_said_back_is_not_shown_in_part(
    server: ProtocolServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Long messages are cut, and a cut key would no longer be known as one."""
    server.key, server.error = "another", {"error": {"message": "x" * before + KEY + "y" * 99}}
    monkeypatch.setenv("MY_KEY", KEY)
    assert KEY[:6] not in failing(UsageError, connect(api_key_env="MY_KEY"))


@pytest.mark.parametrize("key", [f"{KEY}\nx", f"{KEY} x", f"{KEY}é"])
def test_a_broken_key_is_refused_and_not_shown(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The libraries below would quote it in their complaint."""
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UsageError) as caught:
        connect(api_key_env="MY_KEY")
    assert "the key in MY_KEY" in str(caught.value) and KEY not in str(caught.value)


def test_a_proxy_is_not_asked_for_this_machine(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key would go to it in the clear."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")  # the end of a line is no part of a key
    assert connect(api_key_env="MY_KEY").complete(HELLO).text


def test_the_key_is_sent_as_asked(
    server: ProtocolServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the header alone."""
    server.key = KEY
    monkeypatch.setenv("MY_KEY", KEY)
    connect(api_key_env="MY_KEY").complete(HELLO)
    assert KEY not in str(server.bodies)
    connect(api_key_env="MY_KEY").having(model="other").complete(HELLO)
    assert server.bodies[-1]["model"] == "other"


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, {"error": {"message": "no such model"}}, "knows no model 'tiny'"),
        (402, {"error": {"message": "pay first"}}, "no credit (402)"),
        (429, {"error": {"code": "insufficient_quota"}}, "no credit (429)"),
        (308, {}, "leads to another address"),
    ],
)
def test_what_concerns_every_prompt_ends_asking(
    server: ProtocolServer, connect: Connect, status: int, error: dict[str, Any], words: str
) -> None:
    """Once is enough to know."""
    server.faults, server.error = [status], error
    assert words in failing(UsageError, connect())
    assert len(server.bodies) == 1


def test_a_prompt_can_be_refused_alone(server: ProtocolServer, connect: Connect) -> None:
    """One text that is too long must not end the labelling of all others."""
    server.error = {"error": {"message": "context length\x1b[2J exceeded"}}
    server.faults = [400]
    outcomes = dict(connect(concurrency=1).complete_many([("a", HELLO), ("b", HELLO)]))
    assert isinstance(outcomes["a"], RefusedPromptError) and isinstance(outcomes["b"], Answer)
    assert "(400). It says: context length�[2J exceeded" in str(outcomes["a"])


@pytest.mark.parametrize(
    "error",
    [
        {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"]}},
        {"code": "content_filter", "message": "flagged"},
    ],
)
def test_a_text_that_is_held_for_harmful_is_refused_alone(
    server: ProtocolServer, connect: Connect, error: dict[str, Any]
) -> None:
    """It comes with the status of a refused key, as OpenRouter sends it; the key is good."""
    server.error, server.faults = {"error": error}, [403]
    outcomes = dict(connect(concurrency=1).complete_many([("a", HELLO), ("b", HELLO)]))
    assert isinstance(outcomes["a"], RefusedPromptError) and isinstance(outcomes["b"], Answer)
    assert "as harmful (403). It says: flagged" in str(outcomes["a"])
    server.error, server.faults = {"error": {"code": 403, "message": "no"}}, [403]
    assert "(403)" in failing(UsageError, connect())


# What is sent and read


def test_the_body_is_the_protocols_and_can_be_changed(
    server: ProtocolServer, connect: Connect
) -> None:
    """Some models refuse fields that others need."""
    connect(max_tokens=7).complete(HELLO)
    sent = {"model": "tiny", "messages": list(HELLO), "max_tokens": 7, "temperature": 0.0}
    assert server.bodies == [sent]
    body = {"max_tokens": None, "max_completion_tokens": 9, "top_p": 0.5}
    connect(body=body, temperature=None).complete(HELLO)
    changed = {"model": "tiny", "messages": list(HELLO), "max_completion_tokens": 9, "top_p": 0.5}
    assert server.bodies[-1] == changed


def test_tokens_that_nobody_counted_are_estimated(server: ProtocolServer, connect: Connect) -> None:
    """And the answer says so."""
    server.usage = False
    answer = connect().complete(HELLO)
    assert not answer.is_counted and answer.prompt_tokens > 5 and answer.completion_tokens > 5


def test_halves_of_characters_do_not_pass(server: ProtocolServer, connect: Connect) -> None:
    """JSON can hold them and UTF-8 cannot: the corpus could not be written."""
    server.respond = lambda prompt: "a\ud800b"
    assert connect().complete(HELLO).text == "a?b"


def test_few_requests_are_under_way_at_a_time(server: ProtocolServer, connect: Connect) -> None:
    """Those are what a kill can lose, and what servers limit."""
    server.delay_s = 0.02
    answers = list(connect(concurrency=3).complete_many((str(n), HELLO) for n in range(12)))
    assert len({key for key, _ in answers}) == 12
    assert server.most_at_once == 3


def test_a_rate_limit_is_kept(server: ProtocolServer, connect: Connect) -> None:
    """600 a minute are ten a second, whatever the concurrency."""
    began = time.monotonic()
    client = connect(concurrency=8, requests_per_minute=600)
    list(client.complete_many((str(n), HELLO) for n in range(6)))
    assert 0.45 <= time.monotonic() - began


def test_closing_ends_all_waiting(server: ProtocolServer, connect: Connect) -> None:
    """Who presses Ctrl+C is not made to wait for a server's pause."""
    server.faults, server.retry_after = [429] * 9, "60"
    client = connect(concurrency=1)
    source = client.complete_many([("a", HELLO)])
    began = time.monotonic()
    threading.Timer(0.3, client.close).start()
    ((_, outcome),) = source
    assert isinstance(outcome, RetryableError)
    assert time.monotonic() - began < 5


def test_the_example_of_the_documentation_runs(server: ProtocolServer) -> None:
    """A judge of a study is made like this."""
    page = (Path(__file__).parents[3] / "docs" / "corpora.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    server.respond = lambda prompt: "yes"
    scope: dict[str, Any] = {}
    exec(
        compile(example.replace("http://127.0.0.1:8000/v1", server.url), "corpora.md", "exec"),
        scope,
    )
    assert scope["answer"].text == "yes"


# Addresses


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://h:x/v1", "http://a\nb/v1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """Before anything is sent, and with an example."""
    with pytest.raises(UsageError, match="it is the http or https address"):
        Endpoint(EndpointOptions(base_url=url, model="tiny"))


@pytest.mark.parametrize("url", [f"https://u:{KEY}@h/v1", f"https://h/v1?key={KEY}"])
def test_keys_in_an_address_are_refused_and_not_shown(url: str) -> None:
    """Addresses stand in messages; a key must not."""
    with pytest.raises(UsageError) as caught:
        Endpoint(EndpointOptions(base_url=url, model="tiny"))
    assert KEY not in str(caught.value)


def test_a_key_does_not_go_over_the_network_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """To this machine it may, and without a key plain http is nobody's secret."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UsageError, match="in the clear"):
        Endpoint(EndpointOptions(base_url="http://models.example/v1", model="tiny"))
    for url in ("http://[::1]:1/v1", "http://localhost/v1", "https://models.example/v1"):
        Endpoint(EndpointOptions(base_url=url, model="tiny")).close()
    Endpoint(
        EndpointOptions(base_url="http://models.example/v1", model="tiny", api_key_env="")
    ).close()
