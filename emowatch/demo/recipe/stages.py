"""The stages of the recipe; each leaves its result in the work folder and is skipped if done."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch.demo.recipe import language
from emowatch.demo.recipe.batches import (
    ROW,
    Batch,
    Exchanges,
    opening_batches,
    packed_batches,
    padded,
)
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
)
from emowatch.demo.recipe.optimisation import Schedule, evaluate, fit

SHORT_ROW = 256
"""Tokens in a row of pre-training, where attention over short rows takes less time."""
HELD_OUT_ROWS = 128
HELD_OUT_EXCHANGES = 256
UNDERRATED = ("disgust", "fear", "neutral")
"""Emotions that the model takes too seldom for those of a new message after the tone stage.

Measured on 210 messages of GoEmotions *dev*, by the probability of each emotion's openings.
"""
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
    pretrain_tokens: int = 20_000_000
    finetune_tokens: int = 1_597_440
    tone_tokens: int = 3_000_000
    turns_tokens: int = 1_500_000
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
    rows_per_step = plan.rows_per_step * ROW // SHORT_ROW
    steps = plan.pretrain_tokens // (rows_per_step * SHORT_ROW)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        places = np.arange(rows_per_step) + step * rows_per_step
        rows = torch.from_numpy(ids[places % len(ids)].astype(np.int64))
        return rows, (rows > 1).float()

    schedule = Schedule(steps=steps, peak_lr=3e-3, warmup=0.03, fall=0.4)
    fit(model, batches, schedule, plan.work / "pretrain", compiled=plan.compiled)
    rows = torch.from_numpy(held_out.astype(np.int64))
    summary = {
        "tokens": steps * rows_per_step * SHORT_ROW,
        "held_out_tokens": int(rows.numel()),
        "held_out_loss": evaluate(model, rows, (rows > 1).float()),
    }
    path = plan.work / "pretrain.json"
    path.write_text(json.dumps(summary, indent=1), encoding="utf-8")


def finetune(plan: Plan, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Teach replies of all lengths and manners, and ordinary chat."""
    messages = user_messages(plan.data / "goemotions/ekman/train.tsv", "model")
    source = exchanges(messages, list(small_talk(plan.data)), _dialogues(plan), plan.seed)
    course = _Course("finetune", plan.finetune_tokens, 1.5e-3)
    batches = packed_batches(tokenizer, source, plan.rows_per_step)
    _teach(plan, model, tokenizer, course, messages, batches)


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
    """Teach that a message counts in its turn: most exchanges now follow earlier ones.

    Three in ten messages are of the kind that people type into a chat, which GoEmotions lacks,
    and the `UNDERRATED` emotions are drawn twice as often as the others.
    """
    course = _Course("turns", plan.turns_tokens, 1e-3)
    messages = user_messages(plan.data / "goemotions/ekman/train.tsv", "model")
    tokens = plan.rows_per_step // 2 * ROW
    emotions = (*EMOTIONS, *UNDERRATED)
    source = _emotional_exchanges(plan, messages, own_share=0.3, emotions=emotions)
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
    ids, weights = padded(pairs, ROW)
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


def _emotional_exchanges(plan: Plan, messages: dict[str, list[str]], **shares: Any) -> Exchanges:
    talk = list(small_talk(plan.data))
    return exchanges(messages, talk, _dialogues(plan), plan.seed, emotional_share=0.85, **shares)


def _pretraining_rows(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> tuple[Rows, Rows]:
    """Mix the sources by `SHARES` and cut the stream into rows ``[rows, SHORT_ROW + 1]``.

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
        held_out = _mix(tokenizer, spared, HELD_OUT_ROWS * (SHORT_ROW + 1))
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
    count = len(stream) // (SHORT_ROW + 1)
    return np.array(stream[: count * (SHORT_ROW + 1)], dtype=np.uint16).reshape(count, -1)


def _dialogues(plan: Plan) -> list[Document]:
    return [doc for name, doc in pretraining_documents(plan.data) if name == "self-dialogue"]
