"""Let a model answer dialogues, once: what it said is kept, and read again by the next run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emowatch.model.blocks import text_config
from emowatch.model.loading import LoadedModel
from emowatch.model.segments import SegmentParser
from emowatch.workshop.dialogues import Dialogue, encode
from emowatch.workshop.extraction import Progress, model_key
from emowatch.workshop.generating import generation_settings
from emowatch.workshop.locking import alone
from emowatch.workshop.replies import generate_replies


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a model answered."""

    text: str
    """Without thoughts and special tokens, outer white space taken off."""
    is_cut: bool
    """It was ended at the limit of tokens."""
    is_thinking: bool
    """It was ended so while the model still thought."""


def reply_limit(loaded: LoadedModel, asked: int) -> int:
    """Give the longest reply in tokens: what is asked for, but at most half of the context."""
    context = context_of(loaded)
    return asked if context is None else max(1, min(asked, context // 2))


def context_of(loaded: LoadedModel) -> int | None:
    """Give how many tokens the model takes; `None` where it does not say."""
    context: int | None = getattr(text_config(loaded.model), "max_position_embeddings", None)
    return context


def answer(
    loaded: LoadedModel,
    dialogues: Sequence[Dialogue],
    folder: Path,
    *,
    most: int,
    seed: int,
    sample: bool,
    thinks: bool = False,
    progress: Progress | None = None,
) -> list[Said | None]:
    """Let the model answer each dialogue.

    Args:
        loaded: who speaks.
        dialogues: what is said to it.
        folder: replies are kept here, each run of settings in a file of its own.
        most: longest reply in tokens, as `reply_limit` gives it.
        seed: of sampling.
        sample: whether tokens are drawn, as the model's own generation settings say; else the
            likeliest is taken.
        thinks: see `encode`.
        progress: told how many are done.

    Returns:
        For each dialogue the answer; `None` where the context has no room for `most` tokens.

    Raises:
        UsageError: as `encode`.
        RetryableError: if another run is writing replies to `folder`.
        TrainingError: if replies cannot be read or written.
    """
    prompts = [encode(loaded, dialogue, thinks=thinks) for dialogue in dialogues]
    context = context_of(loaded)
    fits = [bool(p) and (context is None or len(p) + most <= context) for p in prompts]
    fitting = [prompt for prompt, has_room in zip(prompts, fits, strict=True) if has_room]
    if not fitting:
        return [None] * len(prompts)
    settings = generation_settings(loaded.model)
    key = [fitting, most, seed, sample, model_key(loaded.model), settings]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    with alone(folder):
        replies = iter(
            generate_replies(
                loaded.model,
                loaded.tokenizer,
                fitting,
                folder / f"{name}.jsonl",
                max_new_tokens=most,
                seed=seed,
                sample=sample,
                progress=progress,
            )
        )
    parser = SegmentParser(loaded.tokenizer)
    return [
        _said(loaded, parser, prompt, next(replies), most) if has_room else None
        for prompt, has_room in zip(prompts, fits, strict=True)
    ]


def _said(
    loaded: LoadedModel, parser: SegmentParser, prompt: list[int], reply: list[int], most: int
) -> Said:
    _, segments = parser.follow(prompt)
    kept = []
    for token in reply:
        if segments.segment not in ("thinking", "special"):
            kept.append(token)
        segments.take(token)
    text: str = loaded.tokenizer.decode(kept, skip_special_tokens=True)
    is_cut = len(reply) >= most
    return Said(text=text.strip(), is_cut=is_cut, is_thinking=is_cut and segments.is_thinking)
