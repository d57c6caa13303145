"""Ways that are timed in lock-step say what they say alone, and none sees another's hooks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.lockstep import faults, run_in_lockstep
from benchmarks.ways import HiddenStates, Plain, Scene, Watched, scene_of
from tests.model.zoo import hook_count, make_model

TOKENS = 5


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Set a scene of two rows for a tiny model that never ends a reply."""
    model = make_model("llama")
    model.generation_config.eos_token_id = None
    with scene_of(model, batch=2, prompt=4, tokens=TOKENS) as made:
        yield made


def test_every_way_is_timed_for_every_forward_and_says_the_same(scene: Scene) -> None:
    plain, watched = Plain(scene), Watched(scene, "all", scene.bank(), "all")
    afterwards = HiddenStates(scene)
    with watched.attached():
        runners = run_in_lockstep([plain, watched, afterwards], seed=0)
    assert [len(runner.steps) for runner in runners] == [TOKENS] * 3
    assert all(step > 0 for runner in runners for step in runner.steps)
    assert faults(runners) == {"plain": "", "all": "", "hidden-states": ""}
    assert watched.scores().shape[:2] == (TOKENS, 2)
    assert hook_count(plain.model) == hook_count(watched.model) == 0
    weights = [next(way.model.parameters()).data_ptr() for way in (plain, watched, afterwards)]
    assert weights == [next(scene.model.parameters()).data_ptr()] * 3


class Other(Plain):
    """Says something else."""

    def run(self) -> Tensor:
        """Change the last token."""
        tokens = super().run().clone()
        tokens[:, -1] += 1
        return tokens


class Wrong(HiddenStates):
    """Scores something else."""

    def scores(self) -> NDArray[np.floating]:
        """Turn the scores around."""
        return super().scores()[::-1]


def test_other_tokens_and_other_scores_are_faults(scene: Scene) -> None:
    watched = Watched(scene, "all", scene.bank(), "all")
    with watched.attached():
        runners = run_in_lockstep([Plain(scene), watched, Other(scene, "other"), Wrong(scene)], 0)
    found = faults(runners)
    assert found["other"] == "other tokens"
    assert found["hidden-states"].startswith("scores differ by")
