"""A hub on this machine, and what came of all that was asked of it: two processes, one offline."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub import data_sets, models
from tests.hub.asking import Answer, Answers, Place, step
from tests.hub.server import Hub


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Serve a hub with all its repositories."""
    folder = tmp_path_factory.mktemp("hub")
    with Hub(folder / "served") as hub:
        data_sets.fill(hub, folder / "ran")
        models.fill(hub, folder / "ran")
        yield Place(hub, folder)


@pytest.fixture(scope="package")
def online(place: Place) -> Answers:
    """Ask for everything while the hub answers, and for some things when it no longer does."""
    up = data_sets.ONLINE | models.ONLINE
    down = data_sets.DOWN | models.DOWN
    steps = {"hurry": step("hurry")} | up | {"down": step("tell", "down")} | down
    return place.do(steps) | {"asked": Answer(value=list(place.hub.asked))}


@pytest.fixture(scope="package")
def offline(place: Place, online: Answers) -> Answers:
    """Ask for things that were fetched before, and for others, with HF_HUB_OFFLINE set."""
    place.hub.asked.clear()
    return place.do(data_sets.OFFLINE | models.OFFLINE, HF_HUB_OFFLINE="1")
