"""What is measured of replies is what can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.dosing.doses import best, respond, steered
from emowatch.dosing.governing import HELD, SETTLED, hold, tune
from emowatch.dosing.intervals import interval
from emowatch.dosing.speaking import BATCH, Scene, speak
from emowatch.errors import TuningError, UsageError
from emowatch.labels import EKMAN7
from emowatch.model.loading import LoadedModel


@pytest.fixture
def scene(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> Scene:
    """Set a scene of three messages, with a bank whose heads read along its directions."""
    bank = ProbeBank.random_for(tiny_model, labels=EKMAN7, head="linear")
    # The residual carries a push at layer 1 to the heads behind it, in the same coordinates.
    directions = bank.tensors["direction"][1:2].expand_as(bank.tensors["direction"]).clone()
    weight = 0.5 * directions.transpose(1, 2).contiguous()
    bank = ProbeBank(bank.card, {**bank.tensors, "direction": directions, "weight": weight})
    return Scene(
        loaded=LoadedModel(tiny_model, tiny_tokenizer, "tiny"),
        bank=bank,
        label="joy",
        prompts=("Hello", "How are you today?", "Tell me more"),
        tokens=12,
        at_least=4,
    )


@torch.no_grad()
def test_replies_are_measured_as_by_hand(scene: Scene) -> None:
    """Scores, the text's own likelihood, and the text read again."""
    found = speak(scene)
    assert len(found.scores) == 3 and all(np.isfinite(one).all() for one in found.scores)
    # The first message alone is the first row of the batch: its padding changes nothing.
    alone = replace(scene, prompts=scene.prompts[1:2])
    model: Any = scene.loaded.model
    tokenizer = scene.loaded.tokenizer
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": scene.prompts[1]}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    with emowatch.watch(model, tokenizer, probes=scene.bank) as watch:
        watch.seed_turn(0)
        said = model.generate(
            ids, do_sample=True, temperature=0.8, max_new_tokens=12, min_new_tokens=4
        )
    mine = speak(alone)
    joy = [score.scores["joy"] for score in watch.trace.reply()][1:]
    np.testing.assert_allclose(mine.scores[0], joy, atol=1e-5)
    np.testing.assert_allclose(mine.reread[0], np.mean(joy), atol=1e-5)
    likely = model(said).logits[0, ids.shape[1] - 1 : -1].log_softmax(-1)
    tokens = said[0, ids.shape[1] :]
    wanted = -likely.gather(1, tokens[:, None]).mean()
    np.testing.assert_allclose(mine.surprise[0], float(wanted), rtol=1e-4)


def test_replies_of_one_seed_are_the_same_and_of_another_are_not(scene: Scene) -> None:
    """So that doses differ in nothing but the dose."""
    one, again, other = speak(scene), speak(scene), speak(replace(scene, seed=5))
    np.testing.assert_array_equal(one.means, again.means)
    assert not np.array_equal(one.means, other.means)


def test_more_messages_than_fit_a_batch_are_all_answered(scene: Scene) -> None:
    """In batches."""
    many = replace(scene, rounds=(BATCH // 3) + 1, tokens=4)
    assert len(speak(many).scores) == 3 * many.rounds > BATCH


def test_what_is_added_is_known_token_by_token(scene: Scene) -> None:
    """From the trace."""
    found = speak(scene, [steered(scene, "label", 1, 3.0)])
    assert all(
        (one == pytest.approx(3.0)) for strengths in found.strengths for one in strengths[:-1]
    )
    assert all(one.max() == 0 for one in speak(scene).strengths)


def test_a_dose_raises_the_label_and_a_random_direction_does_less(scene: Scene) -> None:
    """The heads read along the direction, so that the push itself is seen."""
    base, *doses = respond(replace(scene, rounds=4), [1], [1.0, 4.0])
    assert (base.strength, base.change, base.perplexity) == (0, 0, 1)
    by = {(dose.along, dose.strength): dose for dose in doses}
    label, random = by["label", 4.0], by["random", 4.0]
    assert label.change_interval[0] > 0
    assert label.change > 3 * abs(random.change)
    assert label.score == pytest.approx(base.score + label.change)
    assert label.replies == 12


def test_the_best_dose_is_certain_and_fluent(scene: Scene) -> None:
    """Neither the largest at any price, nor one that may be chance."""
    (base,) = [dose for dose in respond(scene, [1], [])]
    good = replace(base, strength=1.0, change=0.2, change_interval=(0.1, 0.3))
    garbled = replace(good, strength=8.0, change=0.8, change_interval=(0.7, 0.9), perplexity=5.0)
    stuck = replace(garbled, perplexity=1.0, repetition=0.5)
    chance = replace(good, strength=2.0, change=0.4, change_interval=(-0.1, 0.9))
    aimless = replace(good, along="random", change=0.9)
    assert best([base, good, garbled, stuck, chance, aimless]) is good
    assert best([base, chance, garbled]) is None


def test_a_governor_is_tuned_and_keeps_its_set_point(scene: Scene) -> None:
    """On a model of random weights whose heads see the push, as in theory."""
    long = replace(scene, rounds=2, tokens=SETTLED + HELD, at_least=SETTLED + HELD)
    tuning = tune(long, 1, 2.0)
    assert tuning.slope_interval[0] <= tuning.slope <= tuning.slope_interval[1]
    assert tuning.margin == pytest.approx(5.0)
    assert abs(tuning.random_slope) < tuning.slope
    goal = (tuning.scores[0] + tuning.scores[1]) / 2
    kept = hold(long, tuning, goal, 6.0)
    assert list(kept)[:2] == ["unsteered", "governor"]
    assert kept["governor"].mean == pytest.approx(goal, abs=0.03)
    assert kept["governor"].saturated < 0.05
    for other in ("unsteered", "proportional only", "governor, random direction"):
        assert abs(kept[other].mean - goal) > abs(kept["governor"].mean - goal)


def test_a_direction_that_does_nothing_is_not_tuned(scene: Scene) -> None:
    """Where the bank reads at the layer that is steered, it reads before."""
    bank = scene.bank
    early = replace(scene, bank=ProbeBank(replace(bank.card, primary=1), bank.tensors))
    with pytest.raises(TuningError, match=r"no certain rise\. The bank reads layer 1, before"):
        tune(early, 2, 0.01)
    blind = {**bank.tensors, "weight": torch.zeros_like(bank.tensors["weight"])}
    with pytest.raises(TuningError, match=r"no certain rise.* Try another --layer"):
        tune(replace(scene, bank=ProbeBank(bank.card, blind)), 1, 2.0)


def test_a_scene_that_cannot_be_played_is_refused(scene: Scene) -> None:
    """Before a model speaks."""
    with pytest.raises(UsageError, match="no label 'bliss'; its labels are anger"):
        replace(scene, label="bliss")
    with pytest.raises(UsageError, match="no messages"):
        replace(scene, prompts=())


def test_replies_too_short_to_settle_are_no_test(scene: Scene) -> None:
    """Nothing is judged on nothing."""
    tuning = tune(replace(scene, rounds=4), 1, 4.0)
    with pytest.raises(TuningError, match="no reply is longer than the 30 tokens"):
        hold(scene, tuning, 0.5, 6.0)


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    """Of 95 %, on normal data of 40 replies."""
    rng = np.random.default_rng(0)
    held = [low <= 0 <= high for low, high in (interval(rng.normal(size=40)) for _ in range(400))]
    assert 0.91 <= np.mean(held) <= 0.98
