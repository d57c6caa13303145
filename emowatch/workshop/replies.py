"""Let the model answer each labelled text once, and keep the answers.

Generating is the slow part: a cached reply is read again by one forward, so replies are
written once and kept as token ids, one JSON line each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emowatch.errors import TrainingError
from emowatch.text import clean_line
from emowatch.workshop.extraction import Progress, model_key

BATCH_ROWS = 64


def generate_replies(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    path: Path,
    *,
    max_new_tokens: int,
    seed: int,
    sample: bool = True,
    progress: Progress | None = None,
) -> list[list[int]]:
    """Answer every prompt and return the replies' token ids, the end token left out.

    What `path` already holds is kept; each batch has its own seed, so a run that was killed
    ends with the same replies.

    Raises:
        TrainingError: if `path` holds the replies to other prompts or of another model, or
            cannot be written.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    key = hashlib.sha256(
        json.dumps(
            [[list(p) for p in prompts], max_new_tokens, seed, sample, model_key(model)]
        ).encode()
    ).hexdigest()
    replies = _read(path, key)
    device = next(model.parameters()).device
    ends, pad = end_tokens(model, tokenizer), tokenizer.pad_token_id
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", buffering=1) as out:
            if not replies and out.tell() == 0:
                out.write(_first_line(key).decode())
            for start in range(0, len(order), BATCH_ROWS):
                batch = order[start : start + BATCH_ROWS]
                if all(i in replies for i in batch):
                    continue
                longest = max(len(prompts[i]) for i in batch)
                ids = torch.full((len(batch), longest), pad)
                mask = torch.zeros_like(ids)
                for row, i in enumerate(batch):
                    ids[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
                    mask[row, longest - len(prompts[i]) :] = 1
                torch.manual_seed(seed * 1_000_003 + start)
                output = model.generate(  # type: ignore[operator]
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    max_new_tokens=max_new_tokens,
                    do_sample=sample,
                    pad_token_id=pad,
                )
                for i, row in zip(batch, output[:, longest:].tolist(), strict=True):
                    replies[i] = list(itertools.takewhile(lambda token: token not in ends, row))
                lines = [json.dumps({"prompt": i, "reply": replies[i]}) for i in batch]
                out.write("\n".join(lines) + "\n")
                if progress is not None:
                    progress(min(start + BATCH_ROWS, len(order)), len(order))
    except OSError as error:
        raise TrainingError(
            f"Could not write replies to {clean_line(str(path))!r}: {error.strerror}. Those that "
            "are written are kept; run the same command again to go on from there."
        ) from error
    return [replies[i] for i in range(len(prompts))]


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Any of them ends a reply; what follows in a batch is padding."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    return {token for token in (*several, tokenizer.eos_token_id) if token is not None}


def _read(path: Path, key: str) -> dict[int, list[int]]:
    if not path.exists():
        return {}
    shown = clean_line(str(path))
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise TrainingError(
            f"Could not read the replies in {shown!r}: {error.strerror}. Choose another folder."
        ) from error
    torn = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
    if lines and lines[0] != _first_line(key):
        raise TrainingError(
            f"Could not use the replies in {shown!r}: they answer other prompts, or are those of "
            "another model. Choose another folder or remove the file."
        )
    if torn:  # by a kill: written anew
        os.truncate(path, sum(map(len, lines)))
    try:
        rows = [json.loads(line) for line in lines[1:]]
        return {row["prompt"]: row["reply"] for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"Could not use the replies in {shown!r}: the file is damaged. Remove it."
        ) from error


def _first_line(key: str) -> bytes:
    return json.dumps({"key": key}).encode() + b"\n"
