"""What a tiny watched model says, its bank, and a plugin made of two functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from emowatch import hookimpl
from emowatch.bank import ProbeBank
from emowatch.bank.uncertainty import Uncertainty
from emowatch.labels import EKMAN7
from emowatch.records import Alarm, Steering, TokenScore
from tests.conftest import END_ID

PROMPT, NEW = 7, 6


def bank_for(model: Any, name: str = "mood", seed: int = 0, layers: Any = "all") -> ProbeBank:
    """Make a random bank of seven labels for all layers."""
    return ProbeBank.random_for(
        model, labels=EKMAN7, head="offset-mlp", name=name, seed=seed, layers=layers
    )


def speak(model: Any, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Any:
    """Generate greedily, `NEW` tokens unless told otherwise."""
    known: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
    whole = torch.ones_like(ids) if mask is None else mask
    return model.generate(ids, attention_mask=whole, **known | options)


@torch.no_grad()
def by_hand(model: Any, bank: ProbeBank, ids: Tensor, place: int, offset: int) -> Tensor:
    """Score one state of ``[time]`` ids from output_hidden_states, at all of the bank's layers."""
    hidden = model(ids[None], output_hidden_states=True).hidden_states
    states = torch.stack([hidden[layer][0, place] for layer in bank.card.layers])
    return bank.heads.scores(states[:, None], offset)[:, 0]


def alarm_at(offset: int, sequence: int = 0, **asked: Any) -> Any:
    """Judge with one alarm at an offset of one row."""

    def judge(score: TokenScore) -> Alarm | None:
        if (score.offset, score.sequence) != (offset, sequence):
            return None
        return Alarm(
            rule="joy is\x1b[31m high",
            label="joy",
            level="critical",
            score=0.91,
            threshold=0.8,
            bank=score.bank,
            turn=score.turn,
            sequence=score.sequence,
            offset=score.offset,
            **asked,
        )

    return judge


class Plugin:
    """A plugin made of one function for `steer` and one for `judge`."""

    def __init__(
        self,
        steer: Callable[[TokenScore], Steering | None] = lambda score: None,
        judge: Callable[[TokenScore], Alarm | Sequence[Alarm] | None] = lambda score: None,
    ) -> None:
        """Take the functions."""
        self.name = "of-a-test"
        self._steer, self._judge = steer, judge
        self.heard: list[TokenScore] = []
        self.alarms: list[Alarm] = []

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Keep it."""
        self.heard.append(score)

    @hookimpl
    def judge(self, score: TokenScore) -> Alarm | Sequence[Alarm] | None:
        """Ask the function."""
        return self._judge(score)

    @hookimpl
    def alarm_raised(self, alarm: Alarm) -> None:
        """Keep it."""
        self.alarms.append(alarm)

    @hookimpl
    def steer(self, score: TokenScore) -> Steering | None:
        """Ask the function."""
        return self._steer(score)


class Script:
    """A logits processor that lets rows say what a test wants."""

    def __init__(self, *rows: Sequence[int]) -> None:
        """Take the tokens of each row; after them the model speaks freely."""
        self.rows = rows
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave only the wanted token possible; elsewhere only the end is forbidden."""
        result = scores.clone()
        result[:, END_ID] = -torch.inf
        for row, wanted in enumerate(self.rows):
            if self.step < len(wanted):
                result[row] = -torch.inf
                result[row, wanted[self.step]] = 0.0
        self.step += 1
        return result


def surer(bank: ProbeBank, seed: int = 0, bins: tuple[int, ...] = (0, 1, 4)) -> ProbeBank:
    """Give a bank label sets, and a distance that is about 1, with `bins` of offsets."""
    card, generator = bank.card, torch.Generator().manual_seed(seed)
    shape = len(bins), card.d_model
    uncertainty = Uncertainty(
        source="random numbers",
        sha256="",
        split="none",
        level=0.9,
        thresholds=tuple(0.1 + 0.02 * number for number in range(len(bins))),
        groups=(100,) * len(bins),
        pooled=(False,) * len(bins),
        last=5,
        keeps=0.99,
        factors=3,
    )
    tensors = bank.tensors | {
        "temperature": bank.tensors["temperature"].expand(-1, len(bins)).contiguous(),
        "state_mean": torch.randn(shape, generator=generator) / 4,
        "state_scale": torch.rand(shape, generator=generator) / 20,
        "state_factors": torch.linalg.qr(torch.randn(card.d_model, 3, generator=generator))[0] / 2,
    }
    return ProbeBank(replace(card, bins=bins, uncertainty=uncertainty), tensors)
