"""The law of layer 0, kept and broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emowatch.errors import StudyError
from emowatch.studies.law import HELD, OF_PLACES, check_chance, check_last_token
from emowatch.studies.probing import measure, options_for, read, train
from emowatch.studies.setting import Setting
from emowatch.workshop.activations import Activations


def test_behind_a_template_all_texts_look_the_same_at_layer_0(setting: Setting) -> None:
    """The last prompt token is a marker; the accuracy of heads there is chance exactly."""
    options = options_for(setting, layers="0,2", head="linear")
    prepared, activations, _ = read(setting, setting.train, options)
    assert check_last_token(prepared, activations) is HELD
    found = measure(setting, train(setting, "probes", options), options)
    check_chance(found)
    assert found.layers[0].balanced_accuracy == pytest.approx(1 / 3, abs=1e-4)


def test_another_token_stops_the_run(setting: Setting) -> None:
    """Prompts as they are end with different tokens: so would a selector that is off by one."""
    options = options_for(setting, template=False)
    prepared, activations, _ = read(setting, setting.train, options)
    with pytest.raises(StudyError, match=r"prompts end with \d+ different tokens"):
        check_last_token(prepared, activations)


def test_states_of_another_place_stop_the_run(setting: Setting) -> None:
    """One token at one position has one embedding."""
    options = options_for(setting, layers="0")
    prepared, _, _ = read(setting, setting.train, options)
    (shard,) = setting.work.glob("states/*/00000.safetensors")
    _spoil(shard)
    with pytest.raises(StudyError, match=r"embeddings at layer 0 that differ by"):
        check_last_token(prepared, Activations(shard.parent))


def _spoil(shard: Path) -> None:
    tensors = load_file(shard)
    tensors["states"][0, 3] += 1
    save_file(tensors, shard)


def test_accuracy_at_layer_0_that_is_not_chance_stops_the_run(setting: Setting) -> None:
    """Labels and rows would be mixed up."""
    options = options_for(setting, layers="0,2", head="linear")
    found = measure(setting, train(setting, "probes", options), options)
    better = replace(found.layers[0], balanced_accuracy=0.5)
    with pytest.raises(StudyError, match=r"balanced accuracy is 0\.5000 and not 0\.3333"):
        check_chance(replace(found, layers=(better, *found.layers[1:])))


def test_learned_positions_are_no_offence(setting: Setting) -> None:
    """GPT-2 adds the embedding of the position: prompts of unequal length differ, lawfully."""
    options = options_for(setting, layers="0")
    prepared, _, _ = read(setting, setting.train, options)
    (shard,) = setting.work.glob("states/*/00000.safetensors")
    tensors = load_file(shard)
    places = torch.tensor([prepared.passages[n].places[-1] for n in tensors["passage"].tolist()])
    tensors["states"][0] += places[:, None] * 0.01
    save_file(tensors, shard)
    assert check_last_token(prepared, Activations(shard.parent)) is OF_PLACES
