"""Let the model answer each labelled text once, and keep the answers.

Generating is the slow part: a cached reply is read again by one forward, so replies are
written once and kept as token ids, one JSON line each.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emowatch.errors import TrainingError
from emowatch.text import clean_line
from emowatch.workshop.extraction import Progress, model_key
from emowatch.workshop.generating import BatchGenerator, generation_settings

BATCH_ROWS = 64
ROUND = 64
"""Tokens after which replies that have not ended are put into batches of their own."""


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
    ends with the same replies. Short replies do not wait for long ones: see `ROUND`.

    Raises:
        TrainingError: if `path` holds the replies to other prompts or of another model, or
            cannot be written.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    key = hashlib.sha256(
        json.dumps(
            [
                [list(p) for p in prompts],
                max_new_tokens,
                seed,
                sample,
                model_key(model),
                generation_settings(model),
            ]
        ).encode()
    ).hexdigest()
    replies = _read(path, key)
    answer = BatchGenerator(model, tokenizer, sample=sample)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", buffering=1) as out:
            if not replies and out.tell() == 0:
                out.write(_first_line(key).decode())
            said = 0
            for number, most in enumerate(_rounds(max_new_tokens)):
                # Whoever has said as much as a round allows goes on in the next.
                members = [i for i in order if not said or len(replies[i].tokens) >= said]
                for start in range(0, len(members), BATCH_ROWS):
                    batch = members[start : start + BATCH_ROWS]
                    if all(i in replies and replies[i].is_past(said) for i in batch):
                        continue
                    before = [replies[i].tokens[:said] if said else [] for i in batch]
                    texts = [[*prompts[i], *b] for i, b in zip(batch, before, strict=True)]
                    torch.manual_seed((seed * 1_000_003 + start) + number * 7_368_787)
                    answers = answer(texts, most - said)
                    lines = []
                    for i, b, (tokens, ended) in zip(batch, before, answers, strict=True):
                        going = not ended and most < max_new_tokens
                        replies[i] = _Reply([*b, *tokens], going)
                        lines.append(replies[i].line(i))
                    out.write("".join(lines))
                    if progress is not None:
                        progress(sum(not one.going for one in replies.values()), len(order))
                said = most
    except OSError as error:
        raise TrainingError(
            f"Could not write replies to {clean_line(str(path))!r}: {error.strerror}. Those that "
            "are written are kept; run the same command again to go on from there."
        ) from error
    return [replies[i].tokens for i in range(len(prompts))]


@dataclass(frozen=True, slots=True)
class _Reply:
    tokens: list[int]
    going: bool
    """Whether it has not ended, and may go on."""

    def is_past(self, said: int) -> bool:
        """Tell whether the round that begins after `said` tokens is over for it."""
        return not self.going or len(self.tokens) > said

    def line(self, prompt: int) -> str:
        going = {"going": True} if self.going else {}
        return json.dumps({"prompt": prompt, "reply": self.tokens} | going) + "\n"


def _rounds(max_new_tokens: int) -> Iterator[int]:
    """Say how long replies may be after each round.

    A batch takes as long as its longest reply, and few are long: those go on among themselves.
    """
    most = ROUND
    while most < max_new_tokens:
        yield most
        most *= 4
    yield max_new_tokens


def _read(path: Path, key: str) -> dict[int, _Reply]:
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
        # A reply that went on has several lines, and the last one holds.
        return {row["prompt"]: _Reply(row["reply"], row.get("going", False)) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"Could not use the replies in {shown!r}: the file is damaged. Remove it."
        ) from error


def _first_line(key: str) -> bytes:
    return json.dumps({"key": key}).encode() + b"\n"
