"""Lay exchanges into batches of token rows with a weight for each token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from emowatch.demo.recipe import language
from emowatch.demo.recipe.corpus import Document
from emowatch.demo.recipe.exchanges import thinned

ROW = 512
"""Tokens in a training row."""
LENGTHS = (32, 48, 64, 96, 192)
"""Row lengths of the tone stage; a longer exchange is cut to the last."""
WHOLE = 0.15
"""Share of the emotional exchanges that the tone stage leaves whole."""
OPENING_WEIGHT = 3.0
"""Weight of a reply's opening in the loss of the tone stage; other reply tokens weigh 1."""
Batch: TypeAlias = tuple[Tensor, Tensor]
"""Token ids and the weight of each in the loss, ``[rows, time + 1]``."""
Exchanges: TypeAlias = Iterator[tuple[str, Document]]
"""Kind and document of one exchange after another, for ever."""


def packed_batches(
    tokenizer: PreTrainedTokenizerFast, source: Exchanges, rows: int
) -> Iterator[Batch]:
    """Yield batches of `rows` rows, packed with exchanges; each row begins with a whole one."""
    packed = _packed_rows(tokenizer, source)
    while True:
        pairs = [next(packed) for _ in range(rows)]
        yield torch.stack([ids for ids, _ in pairs]), torch.stack([part for _, part in pairs])


def _packed_rows(tokenizer: PreTrainedTokenizerFast, source: Exchanges) -> Iterator[Batch]:
    """Pack exchanges into rows ``[ROW + 1]``."""
    while True:
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) <= ROW:
            _, document = next(source)
            more, more_weights = language.encode(tokenizer, document, user_weight=0.2)
            ids += more
            weights += more_weights
        yield torch.tensor(ids[: ROW + 1]), torch.tensor(weights[: ROW + 1])


def opening_batches(
    tokenizer: PreTrainedTokenizerFast,
    source: Exchanges,
    tokens: int,
    seed: int,
    earlier_share: float = 0.0,
) -> Iterator[Batch]:
    """Yield batches of about `tokens` tokens, each of exchanges of much the same length.

    Most emotional replies are cut after their opening, and the message loses a word here and
    there; a share of `WHOLE` is left whole, so that the model goes on knowing how a reply ends.
    A share of `earlier_share` follows an earlier exchange, where the row has room for both.
    """
    rng = random.Random(seed)
    waiting: dict[int, list[tuple[list[int], list[float]]]] = {length: [] for length in LENGTHS}

    def encoded(document: Document, cut: bool) -> tuple[list[int], list[float]]:
        ids, weights = language.encode(
            tokenizer, document, user_weight=0.2, opening_weight=OPENING_WEIGHT
        )
        end = len(ids)
        if cut:  # after the opening of the last reply
            end -= weights[::-1].index(OPENING_WEIGHT)
        return ids[:end], weights[:end]

    while True:
        kind, document = next(source)
        cut = kind != "ordinary" and rng.random() >= WHOLE
        if cut:
            *before, (role, message), reply = document
            document = (*before, (role, thinned(message, rng)), reply)
        ids, weights = encoded(document, cut)
        if rng.random() < earlier_share:
            _, earlier = next(source)
            if document[0][0] == earlier[0][0] == "user":
                longer = encoded((*earlier, *document), cut)
                if len(longer[0]) <= LENGTHS[-1]:
                    ids, weights = longer
        length = next((size for size in LENGTHS if size >= len(ids) - 1), LENGTHS[-1])
        waiting[length].append((ids, weights))
        if len(waiting[length]) == tokens // length:
            yield padded(waiting[length], length)
            waiting[length] = []


def padded(pairs: list[tuple[list[int], list[float]]], length: int) -> Batch:
    """Lay exchanges into rows ``[rows, length + 1]``; padding weighs nothing."""
    ids = torch.zeros(len(pairs), length + 1, dtype=torch.long)
    weights = torch.zeros(len(pairs), length + 1)
    for row, (some_ids, some_weights) in enumerate(pairs):
        count = min(len(some_ids), length + 1)
        ids[row, :count] = torch.tensor(some_ids[:count])
        weights[row, :count] = torch.tensor(some_weights[:count])
    return ids, weights
