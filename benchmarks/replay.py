"""Scores of replies that were written before, against scores read while they are written.

A study follows the emotion through replies. Read along, every token is a forward of its own; read
again, a whole reply is one forward, and the language-model head is left out. Both give the same
scores; the last row holds them to it.

    python -m benchmarks.replay [--replies 8] [--tokens 200] [--pairs 5]
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.pairs import compare, row
from benchmarks.shapes import goemotions_like, qwen3_50m
from emowatch.bank import ProbeBank
from emowatch.labels import EKMAN7
from emowatch.model.blocks import find_blocks
from emowatch.watching import watch
from emowatch.workshop.extraction import extract
from emowatch.workshop.readouts import Passage

GOAL = 20.0


def read_along(model: Any, bank: ProbeBank, prompts: list[list[int]], tokens: int) -> list[Tensor]:
    """Generate the replies one by one under a watch; their scores ``[tokens, labels]``."""
    found = []
    for prompt in prompts:
        with watch(model, None, probes=bank) as watcher:
            _generate(model, [prompt], tokens)
        reply = [score for score in watcher.trace.tokens if score.offset is not None]
        found.append(torch.stack([torch.tensor(score.scores.array) for score in reply]))
    return found


def read_along_in_a_batch(
    model: Any, bank: ProbeBank, prompts: list[list[int]], tokens: int
) -> None:
    """Generate all replies at once under a watch."""
    with watch(model, None, probes=bank) as watcher:
        _generate(model, prompts, tokens)
    assert len(watcher.trace.tokens)


def read_again(
    model: Any, bank: ProbeBank, prompts: list[list[int]], replies: list[list[int]]
) -> list[Tensor]:
    """Read every state of the replies as the study of persistence does, shards on disk included."""
    passages = [
        Passage(
            (*prompt, *reply[:-1]),
            tuple(range(len(prompt) - 1, len(prompt) + len(reply) - 1)),
            tuple(range(len(reply))),
        )
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = extract(model, find_blocks(model), passages, bank.card.layers, Path(folder))
        scores = bank.heads.scores(found.states(), found.offset)[0]
    return list(scores.split([len(reply) for reply in replies]))


@torch.no_grad()
def _generate(model: Any, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, prompt in enumerate(prompts):
        ids[number, longest - len(prompt) :] = torch.tensor(prompt)
        mask[number, longest - len(prompt) :] = 1
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )
    written: list[list[int]] = output[:, longest:].tolist()
    return written


@click.command()
@click.option("--replies", default=8)
@click.option("--tokens", default=200)
@click.option("--pairs", default=5)
def main(replies: int, tokens: int, pairs: int) -> None:
    """Print ratios, and the largest difference of a score."""
    prompts = goemotions_like(replies)
    model = qwen3_50m(torch.float32)
    bank = ProbeBank.random_for(model, labels=EKMAN7, layers=[8], head="offset-mlp")
    written = [_generate(model, [prompt], tokens)[0] for prompt in prompts]
    again = partial(read_again, model, bank, prompts, written)
    row(f"time read along / read again, {replies} × {tokens} tokens", "median [quartiles]", "goal")
    alone = compare(partial(read_along, model, bank, prompts, tokens), again, pairs=pairs)
    row("replies one by one", alone, f"≥ {GOAL:.0f}")
    together = compare(
        partial(read_along_in_a_batch, model, bank, prompts, tokens), again, pairs=pairs
    )
    row(f"{replies} replies in a batch", together)
    pairs_of = zip(read_along(model, bank, prompts, tokens), again(), strict=True)
    worst = max(float((one - other).abs().max()) for one, other in pairs_of)
    row("largest difference of a score", f"{worst:.1e}", "≤ 1e-4")


if __name__ == "__main__":
    main()
