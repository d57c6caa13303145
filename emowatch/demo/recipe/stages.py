"""The stages of the recipe; each leaves its result in the work folder and is skipped if done."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch.demo.recipe import language
from emowatch.demo.recipe.corpus import (
    Document,
    goemotions,
    half,
    pretraining_documents,
    small_talk,
)
from emowatch.demo.recipe.exchanges import (
    EMOTIONS,
    exchanges,
    ordinary_exchanges,
    reply_book,
    thinned,
)
from emowatch.demo.recipe.optimisation import Schedule, evaluate, fit

ROW = 512
"""Tokens in a training row."""
HELD_OUT_ROWS = 64
HELD_OUT_EXCHANGES = 256
LENGTHS = (32, 48, 64, 96, 192)
"""Row lengths of the tone stage; a longer exchange is cut to the last."""
WHOLE = 0.15
"""Share of the emotional exchanges that the tone stage leaves whole."""
OPENING_WEIGHT = 3.0
"""Weight of a reply's opening in the loss of the tone stage; other reply tokens weigh 1."""
Batch: TypeAlias = tuple[Tensor, Tensor]
"""Token ids and the weight of each in the loss, ``[rows, time + 1]``."""
Rows: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.uint16]]
SHARES = {
    "self-dialogue": 0.5,
    "stories171": 0.3,
    "topical-chat": 0.11,
    "small-talk": 0.05,
    "taskmaster4": 0.04,
}
"""Share of each source in the pre-training tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides what the recipe makes."""

    data: Path
    work: Path
    pretrain_tokens: int = 3_600_000
    finetune_tokens: int = 1_597_440
    tone_tokens: int = 6_000_000
    turns_tokens: int = 800_000
    rows_per_step: int = 24
    seed: int = 0
    compiled: bool = True

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer stage leaves its result."""
        return self.work / "tokenizer"


def make_tokenizer(plan: Plan) -> PreTrainedTokenizerFast:
    """Train the tokenizer on the pre-training texts, the replies and the user messages."""
    if not (plan.tokenizer_folder / "tokenizer.json").exists():
        texts = [text for _, doc in pretraining_documents(plan.data) for _, text in doc]
        texts += [text for text, _ in goemotions(plan.data / "goemotions/ekman/train.tsv")]
        for emotion in EMOTIONS:
            book = reply_book(emotion)
            texts += 40 * [*book.replies, *book.continuations, *book.emotional, *book.calm]
        texts += 40 * [r for _, replies in ordinary_exchanges() for r in replies]
        language.train_tokenizer(texts, plan.tokenizer_folder)
    return language.load_tokenizer(plan.tokenizer_folder)


def new_model(plan: Plan) -> LlamaForCausalLM:
    """Build the model with the weights that the plan's seed draws."""
    torch.manual_seed(plan.seed)
    return language.new_model()


def pretrain(plan: Plan, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Teach English and the form of a chat; every token of a dialogue counts."""
    ids, held_out = _pretraining_rows(plan, tokenizer)
    steps = plan.pretrain_tokens // (plan.rows_per_step * ROW)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        places = np.arange(plan.rows_per_step) + step * plan.rows_per_step
        rows = torch.from_numpy(ids[places % len(ids)].astype(np.int64))
        return rows, (rows > 1).float()

    schedule = Schedule(steps=steps, peak_lr=4e-3)
    fit(model, batches, schedule, plan.work / "pretrain", compiled=plan.compiled)
    rows = torch.from_numpy(held_out.astype(np.int64))
    summary = {
        "tokens": steps * plan.rows_per_step * ROW,
        "held_out_tokens": int(rows.numel()),
        "held_out_loss": evaluate(model, rows, (rows > 1).float()),
    }
    path = plan.work / "pretrain.json"
    path.write_text(json.dumps(summary, indent=1), encoding="utf-8")


def finetune(plan: Plan, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Teach replies of all lengths and manners, and ordinary chat."""
    messages = user_messages(plan.data / "goemotions/ekman/train.tsv", "model")
    rows = _exchange_rows(plan, tokenizer, messages)
    course = _Course("finetune", plan.finetune_tokens, 1.5e-3)
    _teach(plan, model, tokenizer, course, messages, _stacked(rows, plan.rows_per_step))


def tune_tone(plan: Plan, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Teach which tone fits which message: many messages, and of most replies the opening only.

    A reply's first words settle its tone, so that a reply cut there teaches as much in a third
    of the tokens. Each exchange has a row of its own.
    """
    course = _Course("tone", plan.tone_tokens, 2e-3)
    messages = user_messages(plan.data / "goemotions/ekman/train.tsv", "model")
    source = _emotional_exchanges(plan, messages)
    batches = opening_batches(tokenizer, source, plan.rows_per_step // 2 * ROW, plan.seed)
    _teach(plan, model, tokenizer, course, messages, batches)


def continue_talks(plan: Plan, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Teach that a message counts in its turn: most exchanges now follow earlier ones."""
    course = _Course("turns", plan.turns_tokens, 5e-4)
    messages = user_messages(plan.data / "goemotions/ekman/train.tsv", "model")
    tokens = plan.rows_per_step // 2 * ROW
    source = _emotional_exchanges(plan, messages)
    batches = opening_batches(tokenizer, source, tokens, plan.seed, earlier_share=0.6)
    _teach(plan, model, tokenizer, course, messages, batches)


@dataclass(frozen=True, slots=True)
class _Course:
    """One stage of learning from exchanges."""

    name: str
    tokens: int
    peak_lr: float


def _teach(
    plan: Plan,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    course: _Course,
    messages: dict[str, list[str]],
    batches: Iterator[Batch],
) -> None:
    ready: list[Batch] = []
    ends: list[int] = [0]  # tokens seen when a step is done

    def batch_of(step: int) -> Batch:
        while len(ready) <= step:  # a resumed run draws the same rows again, then goes on
            ready.append(next(batches))
        return ready[step]

    while ends[-1] < course.tokens:
        ends.append(ends[-1] + batch_of(len(ends) - 1)[0][:, 1:].numel())
    schedule = Schedule(steps=len(ends) - 1, peak_lr=course.peak_lr)
    fit(model, batch_of, schedule, plan.work / course.name, compiled=plan.compiled)
    dev = user_messages(plan.data / "goemotions/ekman/dev.tsv", None)
    held_out = exchanges(dev, [], [], plan.seed + 1, emotional_share=1.0)
    pairs = [
        language.encode(tokenizer, document, user_weight=0.0)
        for _, document in islice(held_out, HELD_OUT_EXCHANGES)
    ]
    ids, weights = _padded(pairs, ROW)
    summary = {
        "tokens": ends[-1],
        "messages": {emotion: len(texts) for emotion, texts in messages.items()},
        "held_out_reply_tokens": int(weights.sum()),
        "held_out_reply_loss": evaluate(model, ids, weights),
    }
    path = plan.work / f"{course.name}.json"
    path.write_text(json.dumps(summary, indent=1), encoding="utf-8")


def user_messages(path: Path, which: str | None) -> dict[str, list[str]]:
    """Collect the messages of a GoEmotions file by emotion, of one half or (`None`) of both."""
    messages: dict[str, list[str]] = {emotion: [] for emotion in EMOTIONS}
    for text, emotion in goemotions(path):
        if which is None or half(text) == which:
            messages[emotion].append(text)
    return messages


def _pretraining_rows(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> tuple[Rows, Rows]:
    """Mix the sources by `SHARES` and cut the stream into rows ``[rows, ROW + 1]``.

    Returns:
        Rows to learn from, and rows of documents that are never learned from: the last
        fiftieth of each source but small talk, which is too small to spare any.
    """
    paths = [plan.work / f"{part}-{plan.pretrain_tokens}.npy" for part in ("train", "held-out")]
    if not all(path.exists() for path in paths):
        rng = random.Random(plan.seed)
        by_source: dict[str, list[Document]] = {}
        for source, document in pretraining_documents(plan.data):
            by_source.setdefault(source, []).append(document)
        spared: dict[str, list[Document]] = {}
        for source, documents in by_source.items():
            rng.shuffle(documents)
            if source != "small-talk":
                cut = len(documents) - len(documents) // 50
                by_source[source], spared[source] = documents[:cut], documents[cut:]
        held_out = _mix(tokenizer, spared, HELD_OUT_ROWS * (ROW + 1))
        for path, rows in zip(
            paths, (_mix(tokenizer, by_source, plan.pretrain_tokens), held_out), strict=True
        ):
            np.save(path, rows)
    train, spared_rows = (np.load(path, allow_pickle=False) for path in paths)
    return train, spared_rows


def _mix(
    tokenizer: PreTrainedTokenizerFast, by_source: dict[str, list[Document]], tokens: int
) -> Rows:
    """Draw documents source by source, each source again from its start when it runs out."""
    shares = {name: share for name, share in SHARES.items() if name in by_source}
    spent: Counter[str] = Counter()
    place: Counter[str] = Counter()
    stream: list[int] = []
    while len(stream) < tokens:
        source = min(shares, key=lambda name: spent[name] / shares[name])
        documents = by_source[source]
        ids, _ = language.encode(
            tokenizer, documents[place[source] % len(documents)], user_weight=1.0
        )
        place[source] += 1
        spent[source] += len(ids)
        stream += ids
    count = len(stream) // (ROW + 1)
    return np.array(stream[: count * (ROW + 1)], dtype=np.uint16).reshape(count, ROW + 1)


def _exchange_rows(
    plan: Plan, tokenizer: PreTrainedTokenizerFast, messages: dict[str, list[str]]
) -> Iterator[Batch]:
    """Pack exchanges into rows ``[ROW + 1]`` that each begin with a whole exchange."""
    source = exchanges(messages, list(small_talk(plan.data)), _dialogues(plan), plan.seed)
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
    source: Iterator[tuple[str, Document]],
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
            yield _padded(waiting[length], length)
            waiting[length] = []


def _emotional_exchanges(
    plan: Plan, messages: dict[str, list[str]]
) -> Iterator[tuple[str, Document]]:
    talk = list(small_talk(plan.data))
    return exchanges(messages, talk, _dialogues(plan), plan.seed, emotional_share=0.85)


def _padded(pairs: list[tuple[list[int], list[float]]], length: int) -> Batch:
    """Lay exchanges into rows ``[rows, length + 1]``; padding weighs nothing."""
    ids = torch.zeros(len(pairs), length + 1, dtype=torch.long)
    weights = torch.zeros(len(pairs), length + 1)
    for row, (some_ids, some_weights) in enumerate(pairs):
        count = min(len(some_ids), length + 1)
        ids[row, :count] = torch.tensor(some_ids[:count])
        weights[row, :count] = torch.tensor(some_weights[:count])
    return ids, weights


def _stacked(rows: Iterator[Batch], count: int) -> Iterator[Batch]:
    while True:
        pairs = [next(rows) for _ in range(count)]
        yield torch.stack([ids for ids, _ in pairs]), torch.stack([part for _, part in pairs])


def _dialogues(plan: Plan) -> list[Document]:
    return [doc for name, doc in pretraining_documents(plan.data) if name == "self-dialogue"]
