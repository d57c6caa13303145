"""Steering: what is done is what was asked for and capped, and the record of it is exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from emowatch.bank import ProbeBank
from emowatch.errors import UsageError
from emowatch.model.residual import Edit
from emowatch.records import Mode, Steering, SteeringChange
from emowatch.steering import MAX_STRENGTH, Ledger, Wish, edits_of, resolve

WIDTH = 8


def wish(
    strength: float,
    direction: int | Tensor = 0,
    *,
    plugin: str = "calm",
    sequence: int = 0,
    layer: int = 1,
    mode: Mode = "add",
    shadow: bool = False,
) -> Wish:
    """Ask for a strength along one axis, or along a direction."""
    vector = torch.eye(WIDTH)[direction] if isinstance(direction, int) else direction
    return Wish(
        sequence=sequence,
        layer=layer,
        plugin=plugin,
        direction=str(direction),
        strength=strength,
        vector=vector,
        mode=mode,
        shadow=shadow,
    )


def states(rows: int = 2, time: int = 3) -> Tensor:
    """Make hidden states ``[rows, time, WIDTH]``."""
    return torch.randn(rows, time, WIDTH, generator=torch.Generator().manual_seed(0)) * 5


def rms(hidden: Tensor) -> Tensor:
    """Give the root mean square of each state."""
    return hidden.pow(2).mean(-1).sqrt()


def done(wishes: Sequence[Wish], hidden: Tensor) -> Tensor:
    """Change states at layer 1 as is wished for."""
    return edits_of(wishes, hidden.shape[0])[1](hidden)


def rebuilt(changes: Sequence[SteeringChange], rows: int) -> dict[int, Tensor]:
    """Follow the changes of one turn and give what must be added after them."""
    parts = {(c.sequence, c.layer, c.plugin, c.direction): c.applied for c in changes}
    sums: dict[int, Tensor] = {}
    for (row, layer, _, direction), applied in parts.items():
        if applied:
            of_layer = sums.setdefault(layer, torch.zeros(rows, WIDTH))
            of_layer[row] += torch.eye(WIDTH)[int(direction)] * applied
    return sums


def added_by(edits: dict[int, Edit]) -> dict[int, Tensor]:
    """Give what is added at each layer."""
    return {layer: edit.added for layer, edit in edits.items() if edit.added is not None}


# Adding


def test_the_changes_add_up_to_what_is_added() -> None:
    """A trace alone must tell what was done, with many plugins, rows, layers and caps."""
    generator = torch.Generator().manual_seed(0)
    ledger, told = Ledger(), list[SteeringChange]()
    for step in range(60):
        wishes = [
            wish(float(strength), axis, plugin=plugin, sequence=row, layer=layer)
            for plugin in ("calm", "cheer")
            for row in range(2)
            for layer in (0, 2)
            for axis in range(3)
            if (strength := torch.randint(-9, 10, (), generator=generator)) % 3
        ]
        changes = ledger.replace(wishes, 0, [step, step])
        additions = added_by(edits_of(wishes, 2))
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
    assert edits_of([], 2) == {}


def test_the_same_wish_again_is_no_change() -> None:
    """A trace must not grow by a line per token."""
    ledger = Ledger()
    wishes = [wish(3.0), wish(2.0, 1), wish(0.0, 2, mode="clamp"), wish(1.0, 3, mode="ablate")]
    counts = [len(ledger.replace(wishes, 0, [k])) for k in range(5)]
    assert counts == [4, 0, 0, 0, 0]
    ended = ledger.replace([], 0, [5])
    assert [change.ended for change in ended] == [True] * 4
    assert ledger.replace([], 0, [6]) == []


@pytest.mark.parametrize("mode", ["add", "ablate"])
def test_a_wish_of_zero_strength_is_none(mode: Mode) -> None:
    """Adding zeros is not the same to the bit: minus zero becomes zero."""
    wishes = [wish(0.0, mode=mode), wish(-0.0, 1, mode=mode)]
    assert Ledger().replace(wishes, 0, [0]) == []
    assert edits_of(wishes, 1) == {}


def test_what_one_plugin_asks_twice_is_one_part() -> None:
    """It is asked once per bank, and answers each time."""
    wishes = [wish(3.0), wish(3.0)]
    (change,) = Ledger().replace(wishes, 0, [0])
    assert (change.strength, change.applied, change.total) == (6.0, 6.0, 6.0)
    assert added_by(edits_of(wishes, 1))[1][0, 0] == 6.0


def test_the_cap_is_shared_by_all_who_ask() -> None:
    """Each sees what became of its wish, and that it was more than it got."""
    one, other = Ledger().replace([wish(24.0), wish(8.0, plugin="cheer")], 0, [0])
    assert (one.strength, one.applied) == (24.0, 12.0)
    assert (other.strength, other.applied) == (8.0, 4.0)
    assert one.total == other.total == MAX_STRENGTH


def test_wishes_that_oppose_each_other_are_recorded_with_their_sum() -> None:
    """Two plugins that cancel each other out leave the model alone, and the record says so."""
    wishes = [wish(4.0), wish(-4.0, plugin="cheer")]
    changes = Ledger().replace(wishes, 0, [0])
    assert [change.applied for change in changes] == [4.0, -4.0]
    assert [change.total for change in changes] == [0.0, 0.0]
    assert not added_by(edits_of(wishes, 1))[1].any()


def test_what_is_added_is_in_units_of_each_states_rms() -> None:
    """A strength means the same at each layer and token."""
    hidden = states()
    changed = done([wish(2.0, 3, sequence=1)], hidden)
    assert torch.equal(changed[0], hidden[0])
    torch.testing.assert_close(changed[1, :, 3] - hidden[1, :, 3], 2 * rms(hidden[1]))


# Clamping and taking out


def test_what_is_taken_out_is_gone_and_nothing_else_is() -> None:
    """The projection, in one row."""
    hidden = states()
    changed = done([wish(1.0, 2, mode="ablate")], hidden)
    assert changed[0, :, 2].abs().max() < 1e-5
    others = [axis for axis in range(WIDTH) if axis != 2]
    torch.testing.assert_close(changed[0][:, others], hidden[0][:, others])
    assert torch.equal(changed[1], hidden[1])
    half = done([wish(0.5, 2, mode="ablate")], hidden)
    torch.testing.assert_close(half[0, :, 2], hidden[0, :, 2] / 2)


@pytest.mark.parametrize("level", [0.0, 3.0, -2.0])
def test_a_clamp_sets_the_component(level: float) -> None:
    """Whatever it was, also to 0."""
    hidden = states()
    changed = done([wish(level, 2, mode="clamp")], hidden)
    torch.testing.assert_close(changed[0, :, 2], level * rms(hidden[0]), atol=1e-5, rtol=1e-5)


def test_a_component_is_held_against_what_others_add() -> None:
    """One who takes a direction out must be able to rely on it."""
    hidden = states()
    changed = done([wish(1.0, 2, mode="ablate"), wish(9.0, 2, plugin="cheer")], hidden)
    assert changed[0, :, 2].abs().max() < 1e-4


def test_directions_that_are_not_orthogonal_are_all_taken_out() -> None:
    """One after the other would leave some of the first."""
    generator = torch.Generator().manual_seed(1)
    several = torch.nn.functional.normalize(torch.randn(3, WIDTH, generator=generator), dim=1)
    hidden = states()
    changed = done([wish(1.0, vector, mode="ablate") for vector in several], hidden)
    assert (changed[0] @ several.T).abs().max() < 1e-4


def test_two_who_take_the_same_out_take_it_out_once() -> None:
    """Summed up, the direction would come back with its sign turned."""
    hidden = states()
    wishes = [wish(1.0, 2, mode="ablate"), wish(1.0, 2, mode="ablate", plugin="cheer")]
    torch.testing.assert_close(done(wishes, hidden), done(wishes[:1], hidden), atol=1e-4, rtol=1e-4)


def test_a_clamp_is_capped_and_taking_out_is_not() -> None:
    """Nothing can take more out than there is."""
    change, other = Ledger().replace(
        [wish(99.0, mode="clamp"), wish(1.0, 1, mode="ablate")], 0, [0]
    )
    assert (change.strength, change.applied) == (99.0, MAX_STRENGTH)
    assert (other.strength, other.applied) == (1.0, 1.0)


def test_states_in_bfloat16_stay_so() -> None:
    """They are changed in float32 and rounded once."""
    hidden = states().bfloat16()
    changed = done([wish(1.0, 2, mode="ablate")], hidden)
    assert changed.dtype == torch.bfloat16
    assert changed[0, :, 2].abs().max() < 0.05


# Shadows


@pytest.mark.parametrize("mode", ["add", "clamp", "ablate"])
def test_a_shadow_is_recorded_and_changes_nothing(mode: Mode) -> None:
    """What it would have done is known, what was done is nothing."""
    shadow = wish(1.0, mode=mode, shadow=True)
    (change,) = Ledger().replace([shadow], 0, [0])
    assert (change.strength, change.applied, change.total) == (1.0, 0.0, 0.0)
    assert change.shadow and change.mode == mode
    assert edits_of([shadow], 1) == {}


# Wishes refused


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"layer": 4}, "layers 0 to 3"),
        ({"layer": -1}, "layers 0 to 3"),
        ({"strength": float("nan")}, "strength nan"),
        ({"mode": "push"}, "add, clamp, ablate"),
        ({"positions": "some"}, "all, reply"),
        ({"mode": "ablate", "strength": 1.5}, "between 0 and 1"),
        ({"direction": "bliss"}, "no bank here has that label"),
        ({"direction": "other-bank/joy"}, "no bank here has that label"),
        ({"direction": np.ones(3)}, "finite numbers of shape"),
        ({"direction": np.array([np.nan])}, "finite numbers of shape"),
        ({"direction": np.zeros(32)}, "length 0"),
    ],
)
def test_a_wish_that_cannot_be_met_says_why(
    asked: dict[str, object], why: str, tiny_bank: ProbeBank
) -> None:
    """Before anything is done."""
    given = Steering(**{"direction": "joy", "layer": 1, "strength": 1.0} | asked)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=why):
        resolve(given, [tiny_bank], 4, tiny_bank.card.d_model, plugin="calm", sequence=0)


def test_a_direction_of_a_named_bank_is_that_banks(tiny_bank: ProbeBank) -> None:
    """Several banks may know one label."""
    name = f"{tiny_bank.card.name}/joy"
    found = resolve(
        Steering(direction=name, layer=1, strength=1.0),
        [tiny_bank],
        4,
        tiny_bank.card.d_model,
        plugin="",
        sequence=0,
    )
    assert found.direction == name
    assert torch.equal(found.vector, tiny_bank.direction("joy", 1))


# What one plugin asks for several times


def test_a_shadow_beside_a_real_wish_is_recorded_apart() -> None:
    """Neither hides the other, in any order."""
    for wishes in (
        [wish(3.0), wish(-3.0, shadow=True)],
        [wish(2.0, shadow=True), wish(3.0)],
    ):
        changes = Ledger().replace(wishes, 0, [0])
        told = {(change.shadow, change.applied) for change in changes}
        assert told == {(False, 3.0), (True, 0.0)}
        assert added_by(edits_of(wishes, 1))[1][0, 0] == 3.0


def test_of_two_clamps_of_one_plugin_the_last_word_counts_in_record_and_state() -> None:
    """A change of it is seen, and done."""
    ledger, hidden = Ledger(), states()
    for level in (8.0, -8.0):
        wishes = [wish(3.0, mode="clamp"), wish(level, mode="clamp")]
        (change,) = ledger.replace(wishes, 0, [0, 0])
        assert change.applied == level
        changed = done(wishes, hidden)
        torch.testing.assert_close(changed[0, :, 0], level * rms(hidden[0]), atol=1e-4, rtol=1e-4)


def test_clamps_along_like_directions_do_not_blow_the_state_up() -> None:
    """Held apart, the difference of 1e-4 would have to be stretched to 8."""
    one = torch.eye(WIDTH)[0]
    other = torch.nn.functional.normalize(one + 1e-4 * torch.eye(WIDTH)[1], dim=0)
    hidden = states()
    wishes = [wish(4.0, one, mode="clamp"), wish(-4.0, other, mode="clamp", plugin="cheer")]
    changed = done(wishes, hidden)
    longest = hidden[0].norm(dim=-1) + MAX_STRENGTH * rms(hidden[0])
    assert (changed[0].norm(dim=-1) <= longest).all()
