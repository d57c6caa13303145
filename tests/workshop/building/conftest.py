"""A server that speaks the protocol, and clients of it that do not wait long."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from emowatch.workshop.building import Endpoint, EndpointOptions
from tests.workshop.building.protocol_server import ProtocolServer

__all__ = ["Connect"]
Connect = Callable[..., Endpoint]


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    """Run a server."""
    made = ProtocolServer()
    yield made
    made.close()


@pytest.fixture
def connect(server: ProtocolServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Give what makes clients of the server; they are closed at the end."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made: list[Endpoint] = []

    def connect(**options: object) -> Endpoint:
        known = {"base_url": server.url, "model": "tiny", "first_wait_s": 0.01}
        made.append(Endpoint(EndpointOptions(**known | options)))  # type: ignore[arg-type]
        return made[-1]

    yield connect
    for client in made:
        client.close()
