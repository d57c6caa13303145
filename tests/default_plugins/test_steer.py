"""The plugin that steers every reply: its options, its layer, its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emowatch.default_plugins.steer import Steer
from emowatch.errors import VectorsError
from emowatch.records import Steering
from emowatch.vectors import Vectors
from tests.conftest import make_bank_info, make_session


def asked(**options: Any) -> Steering:
    """Begin a session and take what is asked for in a turn."""
    plugin = Steer(**({"direction": "joy"} | options))
    plugin.session_started(make_session())
    found = plugin.steer_turn()
    assert found is not None
    return found


def vectors(d_model: int = 32, layers: tuple[int, ...] = (0, 2, 3)) -> Vectors:
    """Make a direction along the first axis for each layer."""
    directions = np.zeros((len(layers), 1, d_model), dtype=np.float32)
    directions[..., 0] = 1
    return Vectors(
        labels=("calm",),
        layers=layers,
        directions=directions,
        rms=np.ones(len(layers), dtype=np.float32),
        model="tiny",
        method="of a test",
    )


def test_by_default_it_adds_to_replies_at_the_middle_layer() -> None:
    """As papers do."""
    wanted = Steering(direction="joy", layer=1, strength=2.0, mode="add", positions="reply")
    assert asked() == wanted


def test_the_command_lines_strings_are_taken() -> None:
    """All options."""
    found = asked(
        direction="mood/anger",
        strength="-3",
        layer="2",
        mode="clamp",
        positions="all",
        shadow="true",
    )
    assert found == Steering(
        direction="mood/anger",
        layer=2,
        strength=-3.0,
        mode="clamp",
        positions="all",
        shadow=True,
    )


def test_all_is_taken_out_unless_a_share_is_named() -> None:
    """A strength of 2 would be no share."""
    assert asked(mode="ablate").strength == 1.0
    assert asked(mode="ablate", strength="0.5").strength == 0.5


def test_a_direction_from_a_file_is_that_of_the_layer(tmp_path: Path) -> None:
    """The bank is not asked."""
    vectors().save(tmp_path / "v.safetensors")
    found = asked(file=tmp_path / "v.safetensors", direction="calm")
    # Layers 0 and 2 are below the three blocks; 2 is as near to 1.5 as any.
    assert found.layer == 2
    assert isinstance(found.direction, np.ndarray) and found.direction[0] == 1
    with pytest.raises(VectorsError, match="no label 'joy'; they have calm"):
        asked(file=tmp_path / "v.safetensors")
    with pytest.raises(VectorsError, match="no layer '1'; they have 0, 2, 3"):
        asked(file=tmp_path / "v.safetensors", direction="calm", layer=1)


def test_vectors_of_another_model_are_refused(tmp_path: Path) -> None:
    """By width, and where no layer of theirs can be steered."""
    vectors(d_model=8).save(tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match="of width 8, and 'tiny' has 32"):
        asked(file=tmp_path / "narrow.safetensors", direction="calm")
    vectors(layers=(5, 6)).save(tmp_path / "deep.safetensors")
    with pytest.raises(ValueError, match="no layer below 3"):
        asked(file=tmp_path / "deep.safetensors", direction="calm")


def test_an_array_needs_a_layer() -> None:
    """There is no bank to tell which it is of."""
    array = np.ones(32, dtype=np.float32)
    assert asked(direction=array, layer=0).direction is array
    with pytest.raises(ValueError, match="needs a layer"):
        asked(direction=array)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"strength": "much"}, "'strength' of steer must be a number"),
        ({"layer": "top"}, "'layer' of steer must be the number of a layer"),
        ({"mode": "push"}, "'mode' of steer must be add or clamp or ablate"),
        ({"positions": "user"}, "'positions' of steer must be all or reply"),
        ({"shadow": "maybe"}, "'shadow' of steer must be true or false"),
        ({"direction": "bliss"}, "No bank here has the direction 'bliss'"),
        ({"layer": 3}, "no direction at layer 3"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], why: str) -> None:
    """With the value and what would do."""
    with pytest.raises(ValueError, match=why):
        asked(**options)


def test_a_bank_without_a_layer_below_the_last_cannot_steer() -> None:
    """The state after the final norm goes nowhere."""
    bank = make_bank_info()
    object.__setattr__(bank, "layers", (3,))
    plugin = Steer("joy")
    with pytest.raises(ValueError, match="it has those of none"):
        plugin.session_started(make_session(bank))
