"""How long a study will take here: what it has to do, times how fast this machine does it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from emowatch.model.blocks import find_blocks
from emowatch.model.states import read_states
from emowatch.studies.setting import Setting
from emowatch.workshop.presets import FitOptions
from emowatch.workshop.readouts import prompt_ids
from emowatch.workshop.replies import BATCH_ROWS
from emowatch.workshop.training import HeadTrainer

SAMPLE = 32
"""Texts that are read to measure the speed."""
STEPS = 16
"""Tokens that are generated to measure the speed."""
FIT_ROWS = 4096
"""States that heads are fitted to, to measure the speed; of few, small batches would be."""
FIT_LAYERS = 4


@dataclass(frozen=True, slots=True)
class Work:
    """What a study has to do; the sum of two is that of both."""

    tokens: float = 0
    """To read, at full depth."""
    steps: float = 0
    """Forwards of a full batch that writes replies."""
    rows: float = 0
    """States to fit heads to, times layers and epochs."""

    def __add__(self, other: Work) -> Work:
        """Do both."""
        return Work(self.tokens + other.tokens, self.steps + other.steps, self.rows + other.rows)


@dataclass(frozen=True, slots=True)
class Speed:
    """What this machine does in a second, with this model."""

    tokens: float
    steps: float
    rows: float

    def seconds(self, work: Work) -> float:
        """Say how long some work takes, about."""
        return work.tokens / self.tokens + work.steps / self.steps + work.rows / self.rows


@torch.random.fork_rng()
def measure_speed(setting: Setting) -> Speed:
    """Read, write and fit a little, in a few seconds; random numbers of the run stay theirs."""
    loaded = setting.loaded
    model: Any = loaded.model
    template = setting.template and bool(loaded.tokenizer.chat_template)
    texts = [example.text for example in setting.train.examples[:SAMPLE]]
    ids, mask = _batch([prompt_ids(loaded.tokenizer, text, template=template) for text in texts])
    ids, mask = ids.to(model.device), mask.to(model.device)
    blocks = find_blocks(model, loaded.blocks)
    with _Clock() as reading:
        read_states(model, blocks, [blocks.n_layers], ids, mask)
    prompts = ids[:1].repeat(BATCH_ROWS, 1)
    with _Clock() as writing:
        model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=True,
            pad_token_id=loaded.tokenizer.pad_token_id or 0,
        )
    states = torch.randn(FIT_LAYERS, FIT_ROWS, blocks.d_model)
    labels = torch.arange(FIT_ROWS) % 2
    rows = torch.arange(FIT_ROWS)
    with _Clock() as fitting:
        options = FitOptions(epochs=1, patience=0)
        HeadTrainer("mlp", options).fit(states, labels, rows, rows)
    return Speed(
        tokens=float(mask.sum()) / reading.seconds,
        steps=STEPS / writing.seconds,
        rows=FIT_LAYERS * FIT_ROWS / fitting.seconds,
    )


def tokens_of(setting: Setting) -> tuple[float, float]:
    """Say about how many tokens the training and the test texts have, from a sample of each."""
    template = setting.template and bool(setting.loaded.tokenizer.chat_template)

    def total(examples: Any) -> float:
        sample = examples[:SAMPLE]
        ids = [prompt_ids(setting.loaded.tokenizer, e.text, template=template) for e in sample]
        return sum(map(len, ids)) / len(ids) * len(examples)

    return total(setting.train.examples), total(setting.test.examples)


class _Clock:
    def __enter__(self) -> _Clock:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = max(1e-9, time.perf_counter() - self._start)


def _batch(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return ids, mask.long()
