"""Telling: what plugins hear is what is kept, and what they answer is kept too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch import hookimpl
from emowatch.bank import ProbeBank
from emowatch.records import Alarm, Steering, TokenScore
from tests.model.zoo import left_padded, random_ids
from tests.watching.speaking import NEW, PROMPT, Plugin, speak


def test_what_plugins_hear_is_what_the_trace_keeps(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """And it is read-only, since there may be several of them."""
    plugin = Plugin()
    with emowatch.watch(
        model, tiny_tokenizer, probes=bank, plugins=[plugin], layers="all"
    ) as watch:
        speak(model, *left_padded((4, PROMPT)))
    assert len(plugin.heard) == len(watch.trace.tokens)
    for heard, kept in zip(plugin.heard, watch.trace.tokens, strict=True):
        assert (heard.sequence, heard.position, heard.offset) == (
            kept.sequence,
            kept.position,
            kept.offset,
        )
        assert np.array_equal(heard.scores.array, kept.scores.array)
        assert heard.layer_scores is not None
        for values in (heard.scores.array, heard.layer_scores):
            with pytest.raises(ValueError, match="read-only"):
                values[0] = 0


def test_alarms_are_recorded_and_told(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """One, several or none for each score, in order."""

    def judge(score: TokenScore) -> Sequence[Alarm]:
        if score.offset is None or score.offset % 2:
            return []
        alarm = Alarm(
            rule="even tokens",
            label=score.dominant,
            level="watch",
            score=score.scores[score.dominant],
            threshold=0.0,
            bank=score.bank,
            turn=score.turn,
            sequence=score.sequence,
            offset=score.offset,
        )
        return [alarm, alarm]

    plugin = Plugin(judge=judge)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[plugin]) as watch:
        speak(model, random_ids(1, PROMPT), min_new_tokens=NEW)
    assert [alarm.offset for alarm in watch.trace.alarms] == [0, 0, 2, 2, 4, 4]
    assert plugin.alarms == watch.trace.alarms


def test_a_wish_that_cannot_be_steered_switches_its_plugin_off(
    model: Any, bank: ProbeBank, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip in a steering plugin must not end the user's reply."""

    class Slip:
        """Wants a layer that there is not."""

        @hookimpl
        def steer(self, score: TokenScore) -> Steering:
            return Steering(direction="joy", layer=99, strength=1.0)

    ids = random_ids(1, PROMPT)
    expected = speak(model, ids)
    with emowatch.watch(model, None, probes=bank, plugins=[Slip()]) as w:
        assert torch.equal(speak(model, ids), expected)
    assert w.plugins.errors["Slip"] == 1
    assert "layer 99" in capsys.readouterr().err
