"""Whether a watch scores the very states of the forwards that speak, by hand and to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import emowatch
from emowatch.bank import ProbeBank
from emowatch.records import TokenScore
from emowatch.trace import Trace
from tests.model.zoo import hook_count, left_padded
from tests.watching.speaking import PROMPT, speak

LENGTHS = (3, PROMPT)


class Hearer:
    """A plugin that keeps what it hears and asks for nothing."""

    name = "hearer"

    def __init__(self) -> None:
        """Begin with nothing."""
        self.heard: list[TokenScore] = []

    @emowatch.hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Keep it."""
        self.heard.append(score)


def check_exact(
    model: Any, tokenizer: Any, bank: ProbeBank, *, speaks: bool = True, **options: Any
) -> Trace:
    """Watch a batch and compare each score with that of transformers' own hidden states.

    They are those of the same forwards, so that nothing is forgiven: a model of another kind of
    weights computes a text in another order with and without its cache, and differs from itself.
    `speaks` is whether plugins are to hear of it.
    """
    ids, mask = left_padded(LENGTHS)
    hooks, plugin = hook_count(model), Hearer()
    told: dict[str, Any] = {"output_hidden_states": True, "return_dict_in_generate": True}
    plain = speak(model, ids, mask, eos_token_id=None, **options)
    wanted = speak(model, ids, mask, eos_token_id=None, **told, **options)
    captured = hook_count(model)  # transformers 5 leaves its own when hidden states are asked for
    with emowatch.watch(model, tokenizer, probes=bank, layers="all", plugins=[plugin]) as watch:
        said = speak(model, ids, mask, eos_token_id=None, **options)
    assert torch.equal(said, plain) and torch.equal(said, wanted.sequences)
    assert hooks <= hook_count(model) == captured
    trace = watch.trace
    assert plugin.heard == (list(trace.tokens) if speaks else [])
    for row, length in enumerate(LENGTHS):
        mine = [token for token in trace.tokens if token.sequence == row]
        assert [token.position for token in mine] == list(
            range(length + said.shape[1] - PROMPT - 1)
        )
        for token in mine:
            step = token.offset or 0
            place = -1 if step else token.position - length
            states = torch.stack([of[row, place] for of in wanted.hidden_states[step]])
            with torch.autocast("cpu", enabled=False):
                expected = bank.heads.scores(states[:, None].detach(), step)[:, 0].numpy()
            assert token.layer_scores is not None
            assert np.allclose(token.layer_scores, expected, rtol=0, atol=1e-6)
    return trace
