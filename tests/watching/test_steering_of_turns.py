"""Steering throughout a turn: the same states are changed, however the text comes to the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch import hookimpl
from emowatch.bank import ProbeBank
from emowatch.errors import UnsupportedError
from emowatch.records import Mode, Positions, Session, Steering, SteeringChange
from tests.model.zoo import OLD, left_padded, random_ids
from tests.watching.speaking import NEW, PROMPT, Plugin, speak

LAYER = 1


class Turner:
    """Answers `steer_turn` with a function of the row."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        """Take the function."""
        self._answer = answer
        self.asked: list[tuple[int, int]] = []

    @hookimpl
    def steer_turn(self, turn: int, sequence: int, session: Session) -> Any:
        """Ask the function."""
        assert session.n_layers
        self.asked.append((turn, sequence))
        return self._answer(sequence)


def wish(
    strength: float = 6.0, mode: Mode = "add", positions: Positions = "all", shadow: bool = False
) -> Steering:
    """Ask for a push towards joy."""
    return Steering(
        direction="joy",
        layer=LAYER,
        strength=strength,
        mode=mode,
        positions=positions,
        shadow=shadow,
    )


def watched(model: Any, bank: ProbeBank, answer: Any, ids: Tensor, **options: Any) -> Any:
    """Speak under a plugin that gives this answer for each row; return tokens and watch."""
    plugin = answer if isinstance(answer, Turner) else Turner(lambda _: answer)
    with emowatch.watch(
        model, None, probes=bank, plugins=[plugin], on_plugin_error="raise"
    ) as watch:
        spoken = speak(model, ids, min_new_tokens=NEW, **options)
    return spoken, watch


@torch.no_grad()
def by_hand(model: Any, bank: ProbeBank, ids: Tensor, asked: Steering) -> Tensor:
    """Score each state of ``[columns]`` ids read at once, with plain torch doing the steering.

    Returns ``[columns, labels]`` at the primary layer.
    """
    direction = bank.direction("joy", LAYER)
    first = 0 if asked.positions == "all" else PROMPT

    def change(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0].clone()
        part = hidden[:, first:]
        rms = part.pow(2).mean(-1, keepdim=True).sqrt()
        component = (part @ direction)[..., None]
        hidden[:, first:] = {
            "add": part + asked.strength * rms * direction,
            "clamp": part + (asked.strength * rms - component) * direction,
            "ablate": part - asked.strength * component * direction,
        }[asked.mode]
        return hidden, *args[1:]

    handle = model.model.layers[LAYER].register_forward_pre_hook(change)
    hidden = model(ids[None], output_hidden_states=True).hidden_states[bank.card.primary][0]
    handle.remove()
    offsets = (torch.arange(len(ids)) - (PROMPT - 1)).clamp(min=0)
    place = bank.card.layers.index(bank.card.primary)
    return bank.heads.only([place]).scores(hidden[None], offsets)[0]


@pytest.mark.parametrize("positions", ["all", "reply"])
@pytest.mark.parametrize(("mode", "strength"), [("add", 6.0), ("clamp", -3.0), ("ablate", 1.0)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},
        {"prompt_lookup_num_tokens": 2},
        *([] if OLD else [{"prefill_chunk_size": 3}]),
    ],
    ids=str,
)
def test_states_are_steered_as_in_one_forward_over_the_whole_text(
    model: Any,
    bank: ProbeBank,
    mode: Mode,
    strength: float,
    positions: Positions,
    options: dict[str, Any],
) -> None:
    """With a cache, without one, in chunks and with candidates: the bug of masks over a slice."""
    asked = wish(strength, mode, positions)
    spoken, watch = watched(model, bank, asked, random_ids(1, PROMPT), **options)
    wanted = by_hand(model, bank, spoken[0, :-1], asked)
    found = watch.trace.tokens.array()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("positions", ["all", "reply"])
def test_padding_on_the_left_changes_nothing(
    model: Any, bank: ProbeBank, positions: Positions
) -> None:
    """A short prompt in a batch is steered as alone."""
    asked = wish(positions=positions)
    ids, mask = left_padded((PROMPT, PROMPT + 4))
    _, alone = watched(model, bank, asked, ids[:1, -PROMPT:])
    _, together = watched(model, bank, asked, ids, mask=mask)
    mine = [t.scores.array for t in together.trace.tokens if t.sequence == 0]
    np.testing.assert_allclose(mine, alone.trace.tokens.array(), atol=2e-5)


def test_each_row_is_steered_by_its_own_wish(model: Any, bank: ProbeBank) -> None:
    """A batch is several people."""
    ids = random_ids(3, PROMPT)
    answers = [wish(), None, [wish(-6.0), wish(1.0, "ablate")]]
    plugin = Turner(lambda row: answers[row])
    _, watch = watched(model, bank, plugin, ids)
    assert plugin.asked == [(0, 0), (0, 1), (0, 2)]
    for row, answer in enumerate(answers):
        _, alone = watched(model, bank, answer, ids[row : row + 1])
        mine = [t.scores.array for t in watch.trace.tokens if t.sequence == row]
        np.testing.assert_allclose(mine, alone.trace.tokens.array(), atol=2e-5)


@pytest.mark.parametrize(
    "answer",
    [wish(0.0), wish(0.0, "ablate"), wish(shadow=True), wish(2.0, "clamp", shadow=True), None],
    ids=str,
)
def test_what_does_nothing_leaves_every_bit(model: Any, bank: ProbeBank, answer: Any) -> None:
    """Strength 0 and shadows."""
    ids = random_ids(2, PROMPT)
    plain = speak(model, ids, min_new_tokens=NEW)
    # One that hears, so that both are scored a token at a time.
    with emowatch.watch(model, None, probes=bank, plugins=[Plugin()]) as unsteered:
        speak(model, ids, min_new_tokens=NEW)
    with emowatch.watch(
        model, None, probes=bank, plugins=[Plugin(), Turner(lambda _: answer)]
    ) as watch:
        spoken = speak(model, ids, min_new_tokens=NEW)
    assert torch.equal(plain, spoken)
    assert np.array_equal(unsteered.trace.tokens.array(), watch.trace.tokens.array())


def recorded(watch: Any) -> list[tuple[int, int | None, float, float, bool, bool]]:
    """List turn, offset, strength, applied, shadow and end of each change."""

    def row(change: SteeringChange) -> tuple[int, int | None, float, float, bool, bool]:
        return (
            change.turn,
            change.offset,
            change.strength,
            change.applied,
            change.shadow,
            change.ended,
        )

    return [row(change) for change in watch.trace.steerings]


@pytest.mark.parametrize(("positions", "begin"), [("all", None), ("reply", 0)])
def test_it_is_recorded_where_it_begins_and_ends_and_nowhere_else(
    model: Any, bank: ProbeBank, positions: Positions, begin: int | None
) -> None:
    """Two lines a turn, whatever its length."""
    plugin = Turner(lambda _: wish(20.0, positions=positions))
    with emowatch.watch(model, None, probes=bank, plugins=[plugin]) as watch:
        for _ in range(2):
            speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert recorded(watch) == [
        line
        for turn in range(2)
        for line in (
            (turn, begin, 20.0, 16.0, False, False),
            (turn, NEW - 1, 0.0, 0.0, False, True),
        )
    ]


def test_a_shadow_is_in_the_trace(model: Any, bank: ProbeBank) -> None:
    """What it would have done."""
    _, watch = watched(model, bank, wish(3.0, shadow=True), random_ids(1, PROMPT))
    assert recorded(watch) == [
        (0, None, 3.0, 0.0, True, False),
        (0, NEW - 1, 0.0, 0.0, True, True),
    ]


def test_it_adds_up_with_what_is_asked_at_tokens(model: Any, bank: ProbeBank) -> None:
    """Two plugins, one for the turn and one for its later tokens."""
    push = Steering(direction="joy", layer=LAYER, strength=3.0)
    turn, tokens = Turner(lambda _: wish(3.0, positions="reply")), Plugin(steer=lambda _: push)
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, None, probes=bank, plugins=[turn, tokens]) as both:
        speak(model, ids, min_new_tokens=NEW)
    _, alone = watched(model, bank, wish(6.0, positions="reply"), ids)
    np.testing.assert_allclose(both.trace.tokens.array(), alone.trace.tokens.array(), atol=2e-5)
    assert max(change.total for change in both.trace.steerings) == pytest.approx(6.0)


def test_a_turn_after_a_steered_one_is_asked_anew(model: Any, bank: ProbeBank) -> None:
    """Nothing of the last turn is left, whatever the size of the next."""
    answers = iter([wish(), None])
    plugin = Turner(lambda _: next(answers))
    later = random_ids(1, PROMPT + 2, seed=4)
    with emowatch.watch(model, None, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
        speak(model, later, min_new_tokens=NEW)
    _, plain = watched(model, bank, None, later)
    mine = [t.scores.array for t in watch.trace.tokens if t.turn == 1]
    assert np.array_equal(mine, plain.trace.tokens.array())


@torch.no_grad()
def test_an_own_loop_that_reads_all_again_is_steered_in_its_reply(
    model: Any, bank: ProbeBank
) -> None:
    """Its columns tell prompt and reply apart."""
    asked = wish(positions="reply")
    ids = random_ids(1, PROMPT + 3)
    with emowatch.watch(model, None, probes=bank, plugins=[Turner(lambda _: asked)]) as watch:
        for columns in range(PROMPT, PROMPT + 4):
            model(ids[:, :columns], use_cache=False)
    wanted = by_hand(model, bank, ids[0], asked)
    np.testing.assert_allclose(watch.trace.tokens.array(), wanted, atol=2e-5)


def test_beams_are_not_steered(model: Any, bank: ProbeBank) -> None:
    """Their rows are reordered, and those of different wishes would be compared."""
    with pytest.raises(UnsupportedError, match="Could not steer under beam search"):
        watched(model, bank, wish(), random_ids(1, PROMPT), num_beams=2)
    spoken, _ = watched(model, bank, wish(0.0), random_ids(1, PROMPT), num_beams=2)
    assert spoken.shape == (1, PROMPT + NEW)


def test_a_wish_that_cannot_be_met_switches_its_plugin_off(
    model: Any,
    bank: ProbeBank,
    tiny_tokenizer: PreTrainedTokenizerFast,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the reply goes on without it."""
    bad = Turner(lambda _: Steering(direction="bliss", layer=LAYER, strength=1.0))
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[bad]) as watch:
        spoken = speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert spoken.shape == (1, PROMPT + NEW)
    assert watch.plugins.errors == {"Turner": 1}
    assert "no bank here has that label" in capsys.readouterr().err
