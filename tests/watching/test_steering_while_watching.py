"""Steering while watching: it begins, changes and ends where the record says, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.records import Steering, TokenScore
from tests.conftest import END_ID
from tests.model.zoo import WIDTH, random_ids
from tests.watching.speaking import NEW, PROMPT, Plugin, Script, speak


def towards(strength: float, layer: int = 1) -> Callable[[TokenScore], Steering]:
    """Always ask for the same direction."""
    return lambda score: Steering(direction="joy", layer=layer, strength=strength)


def lines_of(watch: Any) -> list[tuple[int, int, int, float]]:
    """List turn, row, offset and strength of each change."""
    return [(c.turn, c.sequence, c.offset, c.strength) for c in watch.trace.steerings]


def test_steering_with_zero_strength_changes_nothing(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The first law, through the whole way from plugin to residual."""
    ids = random_ids(2, PROMPT)
    plain = speak(model, ids, min_new_tokens=NEW)
    # One that hears, so that both are scored a token at a time: some processors round the heads of
    # eight tokens otherwise.
    with emowatch.watch(
        model, tiny_tokenizer, probes=bank, plugins=[Plugin(steer=lambda _: None)]
    ) as unsteered:
        speak(model, ids, min_new_tokens=NEW)
    with emowatch.watch(
        model, tiny_tokenizer, probes=bank, plugins=[Plugin(steer=towards(0.0))]
    ) as watch:
        steered = speak(model, ids, min_new_tokens=NEW)
    assert torch.equal(plain, steered)
    assert np.array_equal(unsteered.trace.tokens.array(), watch.trace.tokens.array())
    assert unsteered.trace.steerings == watch.trace.steerings == []


def test_steering_begins_with_the_forward_after_the_wish(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Prompt and first token are as without; then the states differ."""
    ids = random_ids(1, PROMPT)
    scores = []
    for strength in (0.0, 8.0):
        plugin = Plugin(steer=towards(strength))
        with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
            speak(model, ids, min_new_tokens=NEW)
        scores.append(watch.trace.tokens.array())
    assert np.array_equal(scores[0][:PROMPT], scores[1][:PROMPT])
    assert not np.allclose(scores[0][PROMPT], scores[1][PROMPT])


def test_steering_is_recorded_where_it_begins_changes_and_ends(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """One that stays the same takes no line per token, and what one turn began ends with it."""
    strengths = [0.0, 2.0, 2.0, 5.0, 5.0, 5.0]
    plugin = Plugin(
        steer=lambda score: (
            towards(strengths[score.offset or 0])(score) if score.sequence == 1 else None
        )
    )
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(2, PROMPT), min_new_tokens=NEW)
        speak(model, random_ids(2, PROMPT), min_new_tokens=NEW)
    assert lines_of(watch) == [
        (turn, 1, *line) for turn in (0, 1) for line in ((1, 2.0), (3, 5.0), (NEW - 1, 0.0))
    ]
    first = watch.trace.steerings[0]
    assert (first.plugin, first.direction, first.layer) == ("of-a-test", "joy", 1)
    assert first.applied == 2.0 and first.total == pytest.approx(2.0)


def test_steering_that_is_no_longer_asked_for_ends_in_the_record(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Silence is not the same as asking again."""
    plugin = Plugin(steer=lambda score: towards(4.0)(score) if score.offset in (1, 2) else None)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert lines_of(watch) == [(0, 0, 1, 4.0), (0, 0, 3, 0.0)]
    assert watch.trace.steerings[1].total == 0.0


def test_steering_of_a_row_ends_with_the_row(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Its last state is the last that anything can be decided at."""
    script = Script([40, END_ID], [40] * NEW)
    plugin = Plugin(steer=towards(4.0))
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(2, PROMPT), logits_processor=[script])
    assert lines_of(watch) == [
        (0, 0, 0, 4.0),
        (0, 1, 0, 4.0),
        (0, 0, 1, 0.0),
        (0, 1, NEW - 1, 0.0),
    ]


def test_steering_by_an_array_is_recorded_by_its_hash(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The same array has the same name, and another has another."""
    arrays = np.random.default_rng(0).normal(size=(2, WIDTH)).astype(np.float32)
    plugin = Plugin(
        steer=lambda score: Steering(
            direction=arrays[0 if (score.offset or 0) < 3 else 1], layer=0, strength=1.0
        )
    )
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    names = [change.direction for change in watch.trace.steerings]
    assert lines_of(watch) == [(0, 0, 0, 1.0), (0, 0, 3, 0.0), (0, 0, 3, 1.0), (0, 0, 5, 0.0)]
    assert names[0] == names[1] != names[2] == names[3]
    assert all(name.startswith("sha256:") and len(name) == 19 for name in names)


def test_steering_of_one_row_leaves_the_others_alone(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A batch is several people."""
    ids = random_ids(2, PROMPT)
    plugin = Plugin(steer=lambda score: towards(8.0)(score) if score.sequence == 1 else None)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as plain:
        speak(model, ids, min_new_tokens=NEW)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, ids, min_new_tokens=NEW)
    for row, same in ((0, True), (1, False)):
        found = [t.scores.array for t in watch.trace.reply(sequence=row)]
        wanted = [t.scores.array for t in plain.trace.reply(sequence=row)]
        assert np.allclose(found, wanted, atol=1e-6) == same


def test_a_turn_is_not_steered_by_the_one_before(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The last wish of a turn must not colour the next prompt, which may be of another size."""
    plugin = Plugin(steer=lambda score: towards(8.0)(score) if score.turn == 0 else None)
    later = random_ids(3, PROMPT, seed=2)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(2, PROMPT, seed=1), min_new_tokens=NEW)
        speak(model, later, min_new_tokens=NEW)
    with emowatch.watch(
        model, tiny_tokenizer, probes=bank, plugins=[Plugin(steer=lambda _: None)]
    ) as plain:
        speak(model, later, min_new_tokens=NEW)
    found = [t.scores.array for t in watch.trace.tokens if t.turn == 1]
    assert np.array_equal(found, plain.trace.tokens.array())


def test_after_a_watch_the_model_is_not_steered(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Whatever the last wish was."""
    ids = random_ids(1, PROMPT)
    before = speak(model, ids)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[Plugin(steer=towards(16.0))]):
        speak(model, ids)
    assert torch.equal(speak(model, ids), before)


def test_a_strength_beyond_the_cap_is_capped(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The core has the last word, however many plugins push the same way."""
    scores = []
    for strength in (16.0, 1e6):
        plugin = Plugin(steer=towards(strength))
        with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
            speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
        scores.append(watch.trace.tokens.array())
    assert np.allclose(scores[0], scores[1], atol=1e-6)
