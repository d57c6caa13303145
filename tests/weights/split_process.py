"""One of the processes of `test_tensor_parallel`, run by torchrun: ``split_process MODEL OUT``.

Each process writes what it saw to ``OUT/RANK.json``.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from transformers import AutoModelForCausalLM

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import ProbeMismatchError, UnsupportedError
from emowatch.model.blocks import find_blocks
from emowatch.records import Steering
from emowatch.trace import Trace
from tests.model.zoo import left_padded
from tests.watching.modes import OLD
from tests.watching.speaking import bank_for, speak
from tests.weights.exact import LENGTHS, Hearer, check_exact


class Steerer:
    """A plugin that steers."""

    name = "steerer"

    @emowatch.hookimpl
    def steer(self) -> Steering | None:
        """Ask for nothing this time."""
        return None


def split_model(folder: str) -> Any:
    """Load a model of which each process holds a part."""
    options: dict[str, Any] = {"tp_plan": "auto"}
    if not OLD:
        parallel: Any = transformers.distributed
        options = {"distributed_config": parallel.DistributedConfig(tp_plan="auto", tp_size=2)}
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def scores_of(trace: Trace) -> list[Any]:
    """Give each token's place and its scores at all layers, to the bit."""
    return [
        (token.sequence, token.position, token.offset, token.layer_scores.tolist())
        for token in trace.tokens
        if token.layer_scores is not None
    ]


def refusal(kind: type[Exception], model: Any, bank: ProbeBank, **options: Any) -> str:
    """Give the words in which a watch is refused; nothing where it is not."""
    try:
        emowatch.watch(model, None, probes=bank, **options)
    except kind as error:
        return str(error)
    return ""


def acting(model: Any, bank: ProbeBank, **asked: str) -> dict[str, Any]:
    """Speak under an alarm that rings at once and asks for something; give what came of it."""
    ids, mask = left_padded(LENGTHS)
    rule = ("threshold-alarm", {"threshold": 0.01, "consecutive": 1, **asked})
    told = io.StringIO()
    with (
        contextlib.redirect_stderr(told),
        emowatch.watch(model, None, probes=bank, plugins=[rule]) as watch,
    ):
        spoken = speak(model, ids, mask)
    return {
        "tokens": spoken.tolist(),
        "alarms": len(watch.trace.alarms),
        "stopped": [turn.finish_reason for turn in watch.trace.turns].count("alarm"),
        "steerings": len(watch.trace.steerings),
        "told": told.getvalue(),
    }


def main(folder: str, out: Path) -> None:
    """Speak in every way that the test asks about."""
    model = split_model(folder)
    rank, (ids, mask) = dist.get_rank(), left_padded(LENGTHS)
    bank = ProbeBank.from_file(out / "bank")
    exact = check_exact(model, None, bank, speaks=rank == 0)
    with emowatch.watch(
        model, None, probes=bank, plugins=[("jsonl-log", {"path": out / "log.jsonl"})]
    ) as watch:
        logged = speak(model, ids, mask)
    # One process alone is watched: it must not wait for the other, nor the other for it.
    if rank == 0:
        heard = Hearer()
        with emowatch.watch(model, None, probes=bank, plugins=[heard]):
            alone = speak(model, ids, mask)
        assert len(heard.heard) == len(watch.trace.tokens)
    else:
        alone = speak(model, ids, mask)
    own = bank_for(model)
    found = {
        "tokens": [logged.tolist(), alone.tolist()],
        "scores": scores_of(exact),
        "differing": bank.check_fits(model, find_blocks(model)),
        "own": [own.card.fingerprints.weights, *own.check_fits(model, find_blocks(model))],
        "strict": refusal(ProbeMismatchError, model, bank, strict=True),
        "steering": refusal(UnsupportedError, model, bank, plugins=[Steerer()]),
        "acting": {
            "stop": acting(model, bank, action="stop"),
            "steer": acting(model, bank, steer="joy:4@1"),
        },
    }
    (out / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
