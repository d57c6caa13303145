"""A tiny model that was taught to answer: a few seconds of training make a real one say JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from emowatch.model.loading import LoadedModel
from emowatch.workshop.corpora import Corpus, Example
from emowatch.workshop.dialogues import encode
from tests.workshop.synthetic import WORDS

THINKING = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}"
    "{{- '<think>' if enable_thinking else '<think></think>' -}}{%- endif -%}"
)
"""A template that opens a thought, or closes it at once, as it is told."""
LABELS = tuple(WORDS)
STEPS = 80
IGNORED = -100
_TAUGHT: dict[tuple[str, ...], Any] = {}
"""Weights by what was taught, so that each lesson is given once."""


def texts_of(n: int, first: int = 0) -> tuple[list[str], list[int]]:
    """Make short texts and their classes, `n` of each class."""
    pairs = [
        (f"{WORDS[label][number % 3]} {first + number}", place)
        for number in range(n)
        for place, label in enumerate(LABELS)
    ]
    return [text for text, _ in pairs], [place for _, place in pairs]


def corpus_of(texts: Sequence[str], labels: Sequence[int], names: Sequence[str] = LABELS) -> Corpus:
    """Make a corpus of texts, each a group of its own."""
    return Corpus(
        examples=tuple(
            Example(text=text, label=label, group=text, row=row)
            for row, (text, label) in enumerate(zip(texts, labels, strict=True), 1)
        ),
        labels=tuple(names),
        quarantined=(),
        source="made up",
        sha256="00" * 32,
        text_column="text",
        label_column="label",
        licence=None,
    )


def teach(
    model: Any, tokenizer: Any, answers: Sequence[str] | None = None, *, thinks: bool = False
) -> LoadedModel:
    """Teach the tiny model to answer each text with one string for its class, by default JSON.

    It knows the texts of `texts_of(6)`.
    """
    loaded = LoadedModel(model, tokenizer, "taught")
    said = answers or [json.dumps({"emotion": label}) for label in LABELS]
    key = (*said, str(tokenizer.chat_template))
    if key not in _TAUGHT:
        _learn(loaded, said, thinks)
        _TAUGHT[key] = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(_TAUGHT[key])
    return loaded


def _learn(loaded: LoadedModel, said: Sequence[str], thinks: bool) -> None:
    model: Any = loaded.model
    tokenizer = loaded.tokenizer
    texts, labels = texts_of(6)
    rows = [
        (encode(loaded, [{"role": "user", "content": text}], thinks=thinks), said[label])
        for text, label in zip(texts, labels, strict=True)
    ]
    end = tokenizer.eos_token_id
    whole = [
        (prompt, [*tokenizer(reply, add_special_tokens=False)["input_ids"], end])
        for prompt, reply in rows
    ]
    width = max(len(prompt) + len(reply) for prompt, reply in whole)
    ids = torch.full((len(whole), width), tokenizer.pad_token_id)
    wanted = torch.full_like(ids, IGNORED)
    for row, (prompt, reply) in enumerate(whole):
        ids[row, : len(prompt) + len(reply)] = torch.tensor([*prompt, *reply])
        wanted[row, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        logits = model(input_ids=ids).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), wanted[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
