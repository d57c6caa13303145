"""Run many interventions over many prompts, batch by batch; a run that was killed goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from emowatch.errors import StudyError
from emowatch.studies.notebook.answers import Batch
from emowatch.studies.notebook.sites import Parts, Push, Site
from emowatch.text import clean_line
from emowatch.workshop.extraction import model_key
from emowatch.workshop.locking import alone
from emowatch.workshop.preparation import Report

Readout = Callable[[Tensor, Tensor], Tensor]
"""Of logits ``[rows, vocabulary]`` and states of the deepest layer ``[rows, d_model]``, both in
float32, gives what is kept of them ``[rows, outputs]``."""


@dataclass(frozen=True, slots=True)
class Intervention:
    """What is done to the last token, under a name of its own."""

    name: str
    pushes: Mapping[Site, Push]


def run_interventions(
    model: nn.Module,
    parts: Parts,
    prompts: Sequence[Sequence[int]],
    interventions: Sequence[Intervention],
    readout: Readout,
    folder: Path,
    *,
    key: Sequence[object],
    batch_tokens: int,
    report: Report,
    step: str,
) -> Tensor:
    """Answer every prompt under every intervention.

    Args:
        model: any causal LM.
        parts: of it.
        prompts: token ids.
        interventions: what to do; one that pushes nothing gives the model's own answers.
        readout: what to keep.
        folder: finished batches are kept in a folder below it.
        key: all else that the results depend on, as JSON can hold it.
        batch_tokens: in a batch, padding included; one prompt may have more.
        report: told of progress.
        step: what it is told.

    Returns:
        ``[interventions, prompts, outputs]`` float32.

    Raises:
        StudyError: if a batch that is kept is damaged, or one cannot be written.
        RetryableError: if another run is writing there.
    """
    names = [one.name for one in interventions]
    told = [model_key(model), names, [list(ids) for ids in prompts], batch_tokens, list(key)]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    kept = folder / f"interventions-{digest}"
    deepest = Site("residual", parts.blocks.n_layers)
    batches = _batches(prompts, batch_tokens)
    results: list[Tensor] = []
    with alone(kept):
        for number, rows in enumerate(batches):
            path = kept / f"{number:05d}.safetensors"
            if path.exists():
                results.append(_opened(path, (len(names), len(rows))))
            else:
                batch = Batch(model, parts, torch.tensor(rows), [prompts[row] for row in rows])
                answers = (batch.answer(one.pushes, [deepest]) for one in interventions)
                results.append(torch.stack([readout(own, at[deepest]) for own, at in answers]))
                _write(path, results[-1])
            report(step, number + 1, len(batches))
    order = torch.tensor([row for rows in batches for row in rows]).argsort()
    return torch.cat(results, 1)[:, order]


def _batches(prompts: Sequence[Sequence[int]], batch_tokens: int) -> list[list[int]]:
    """Put prompts of like length together, the longest first."""
    batches: list[list[int]] = []
    for row in sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row)):
        longest = len(prompts[batches[-1][0]]) if batches else 0
        if not batches or longest * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def _opened(path: Path, shape: tuple[int, int]) -> Tensor:
    try:
        found = load(path.read_bytes())["outputs"]
    except (OSError, SafetensorError, KeyError) as error:
        raise StudyError(
            f"Could not use {clean_line(str(path))!r}: it is damaged "
            f"({clean_line(str(error), 80)}). Remove it and run again."
        ) from error
    if tuple(found.shape[:2]) != shape:
        raise StudyError(
            f"Could not use {clean_line(str(path))!r}: it holds {tuple(found.shape)} where "
            f"{shape} were expected. Remove it and run again."
        )
    return found


def _write(path: Path, outputs: Tensor) -> None:
    """Write a file that is whole or not there."""
    temporary = path.with_suffix(".part")
    try:
        temporary.write_bytes(save({"outputs": outputs.contiguous()}))
        temporary.replace(path)
    except OSError as error:
        raise StudyError(
            f"Could not write {clean_line(str(path))!r}: {error.strerror}. Batches that are "
            "finished are kept; make room and run the same command again."
        ) from error
