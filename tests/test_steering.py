"""Steering: what is added is the capped sum, and the record of it is exact and short."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from emowatch.records import SteeringChange
from emowatch.steering import MAX_STRENGTH, Mixer, Wish

WIDTH = 8


def wish(
    strength: float, direction: int = 0, *, plugin: str = "calm", sequence: int = 0, layer: int = 1
) -> Wish:
    """Ask for a strength along one axis."""
    return Wish(
        sequence, layer, plugin, str(direction), strength, torch.eye(WIDTH)[direction] * strength
    )


def rebuilt(changes: Sequence[SteeringChange], rows: int) -> dict[int, Tensor]:
    """Follow the changes of one turn and give what must be added after them."""
    parts = {(c.sequence, c.layer, c.plugin, c.direction): c.applied for c in changes}
    sums: dict[int, Tensor] = {}
    for (row, layer, _, direction), applied in parts.items():
        if applied:
            of_layer = sums.setdefault(layer, torch.zeros(rows, WIDTH))
            of_layer[row] += torch.eye(WIDTH)[int(direction)] * applied
    return sums


def test_the_changes_add_up_to_what_is_added() -> None:
    """A trace alone must tell what was done, with many plugins, rows, layers and caps."""
    generator = torch.Generator().manual_seed(0)
    mixer, told = Mixer(), list[SteeringChange]()
    for step in range(60):
        wishes = [
            wish(float(strength), axis, plugin=plugin, sequence=row, layer=layer)
            for plugin in ("calm", "cheer")
            for row in range(2)
            for layer in (0, 2)
            for axis in range(3)
            if (strength := torch.randint(-9, 10, (), generator=generator)) % 3
        ]
        additions, changes = mixer.mix(wishes, 0, [step, step])
        told += changes
        wanted = rebuilt(told, 2)
        assert additions.keys() >= wanted.keys()
        for layer, added in additions.items():
            torch.testing.assert_close(added, wanted.get(layer, torch.zeros(2, WIDTH)))
            assert (added.norm(dim=1) <= MAX_STRENGTH * 1.0001).all()
        for change in changes:
            if change.layer in additions:
                length = additions[change.layer][change.sequence].norm()
                assert change.total == pytest.approx(float(length), abs=1e-5)
    assert mixer.mix([], 0, [60, 60])[0] == {}


def test_the_same_wish_again_is_no_change() -> None:
    """A trace must not grow by a line per token."""
    mixer = Mixer()
    counts = [len(mixer.mix([wish(3.0), wish(2.0, 1)], 0, [k])[1]) for k in range(5)]
    assert counts == [2, 0, 0, 0, 0]
    assert len(mixer.mix([], 0, [5])[1]) == 2
    assert mixer.mix([], 0, [6]) == ({}, [])


def test_a_wish_of_zero_strength_is_none() -> None:
    """Adding zeros is not the same to the bit: minus zero becomes zero."""
    assert Mixer().mix([wish(0.0), wish(-0.0, 1)], 0, [0]) == ({}, [])


def test_what_one_plugin_asks_twice_is_one_part() -> None:
    """It is asked once per bank, and answers each time."""
    additions, (change,) = Mixer().mix([wish(3.0), wish(3.0)], 0, [0])
    assert (change.strength, change.applied, change.total) == (6.0, 6.0, 6.0)
    assert additions[1][0, 0] == 6.0


def test_the_cap_is_shared_by_all_who_ask() -> None:
    """Each sees what became of its wish, and that it was more than it got."""
    _, (one, other) = Mixer().mix([wish(24.0), wish(8.0, plugin="cheer")], 0, [0])
    assert (one.strength, one.applied) == (24.0, 12.0)
    assert (other.strength, other.applied) == (8.0, 4.0)
    assert one.total == other.total == MAX_STRENGTH


def test_wishes_that_oppose_each_other_are_recorded_with_their_sum() -> None:
    """Two plugins that cancel each other out leave the model alone, and the record says so."""
    additions, changes = Mixer().mix([wish(4.0), wish(-4.0, plugin="cheer")], 0, [0])
    assert [change.applied for change in changes] == [4.0, -4.0]
    assert [change.total for change in changes] == [0.0, 0.0]
    assert not additions[1].any()
