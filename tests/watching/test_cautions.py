"""What is said on stderr of scores that are worth less than they look, and how often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import emowatch
from emowatch.bank import ProbeBank
from emowatch.bank.card import Readout
from emowatch.watching import cautions
from tests.model.zoo import random_ids
from tests.watching.speaking import PROMPT, bank_for, speak


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a new process does."""
    monkeypatch.setattr(cautions, "_told", set())


@pytest.mark.parametrize(
    ("readout", "offsets", "said"),
    [
        ("last_prompt_token", (0, 0), "at the last prompt token only. Its scores at later tokens"),
        ("positions", (0, 0), "at chosen tokens of prompts only. Its scores at other tokens"),
        ("mean", (0, 0), "on means over prompts only. Its scores of single tokens"),
        ("reply", (0, 95), ""),
        ("reply", (0, 0), ""),
    ],
)
def test_a_bank_that_is_read_where_it_was_not_trained_is_told_of(
    readout: Readout, offsets: tuple[int, int], said: str, model: Any, bank: ProbeBank, capsys: Any
) -> None:
    """Its scores of replies look like any others; a bank of replies makes no noise."""
    card = replace(bank.card, readout=readout, offsets=offsets)
    with emowatch.watch(model, None, probes=ProbeBank(card, bank.tensors)) as watch:
        speak(model, random_ids(1, PROMPT))
    (info,) = watch.session.banks
    assert (info.readout, info.offsets) == (readout, offsets)
    told = capsys.readouterr().err
    if not said:
        assert told == ""
        return
    assert told.startswith(f"emowatch: the bank mood was trained {said} are extrapolated: ")
    assert told.endswith("use a bank that was trained with --readout reply.\n")
    assert told.count("\n") == 1


def test_each_bank_is_told_of_once_in_a_process(model: Any, capsys: Any) -> None:
    """A script that watches in a loop, or a server, would say it again for every reply."""
    banks = []
    for name, seed in (("mood", 0), ("mood", 1), ("tone", 0)):
        made = bank_for(model, name, seed)
        card = replace(made.card, readout="mean", offsets=(0, 0))
        banks.append(ProbeBank(card, made.tensors))
    for bank in 3 * banks:
        with emowatch.watch(model, None, probes=bank):
            pass
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[3] for line in told] == ["mood", "mood", "tone"]
