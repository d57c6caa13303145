"""Read the states of many passages into shards on disk.

Forward only to the deepest layer asked for and without the language-model head; batches of
like length under a token budget; chosen places only. What is computed follows from the input
alone, so a run that was killed goes on where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from emowatch.errors import TrainingError
from emowatch.model.blocks import Blocks
from emowatch.model.readable import check_readable
from emowatch.model.states import read_states
from emowatch.text import clean_line
from emowatch.workshop.activations import KEY, MANIFEST, SHARDS, TEMPORARY, Activations
from emowatch.workshop.locking import alone
from emowatch.workshop.options import BATCH_TOKENS
from emowatch.workshop.readouts import Passage

SHARD_BYTES = 64 * 2**20
SHARD_TOKENS = 50_000
"""A shard ends at whichever is reached first; a run that is stopped loses at most one."""
Progress = Callable[[int, int], None]
"""Called with tokens done and tokens in all."""


@dataclass(frozen=True, slots=True)
class _Shard:
    name: str
    batches: tuple[tuple[int, ...], ...]
    """Passages by number, batch by batch."""
    tokens: int


def extract(
    model: nn.Module,
    blocks: Blocks,
    passages: Sequence[Passage],
    layers: Sequence[int],
    folder: Path,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Activations:
    """Read the states of `passages` at `layers` into `folder` and open them.

    Shards that are already there and belong to the same work are kept as they are.

    Args:
        model: any causal LM.
        blocks: where its residual stream is.
        passages: what to read, and where.
        layers: layers to read, ascending.
        folder: made if it is not there.
        batch_tokens: most tokens in a batch, padding included; one passage may have more.
        progress: called once at the start, with the tokens of shards that are there already,
            and after each batch.

    Raises:
        RetryableError: if another run is writing to the folder.
        TrainingError: if the folder holds other work, or the disk is full; finished shards
            stay.
    """
    if not passages:
        raise TrainingError("There is nothing to extract: no passage was given.")
    check_readable(model)
    dtype = next(model.parameters()).dtype
    key = _fingerprint(passages, layers, dtype, batch_tokens, model, blocks)
    shards = list(_plan(passages, len(layers) * blocks.d_model * dtype.itemsize, batch_tokens))
    total = sum(len(passage.ids) for passage in passages)
    done = kept = 0

    def advance(tokens: int) -> None:
        nonlocal done
        done += tokens
        if progress is not None:
            progress(done, total)

    manifest = {
        "key": key,
        "layers": list(layers),
        "d_model": blocks.d_model,
        "shards": [shard.name for shard in shards],
    }
    with alone(folder):
        _claim(folder, key)
        try:
            missing = [shard for shard in shards if not (folder / shard.name).exists()]
            kept = total - sum(shard.tokens for shard in missing)
            advance(kept)
            for shard in missing:
                data = _read_shard(model, blocks, passages, layers, shard, advance)
                _write(folder / shard.name, data)
                kept = done
            _write(folder / MANIFEST, json.dumps(manifest, sort_keys=True).encode())
        except OSError as error:
            raise _disk_error(error, folder, kept, total) from error
    return Activations(folder)


def _plan(passages: Sequence[Passage], row_bytes: int, batch_tokens: int) -> Iterator[_Shard]:
    """Cut passages, longest first, into batches, and batches into shards of bounded size.

    A shard ends where it has enough bytes, or has cost enough tokens.
    """
    order = sorted(range(len(passages)), key=lambda i: (-len(passages[i].ids), i))
    batches: list[tuple[int, ...]] = []
    batch: list[int] = []
    size = tokens = number = 0
    for i in order:
        longest = len(passages[batch[0]].ids) if batch else 0
        if batch and longest * (len(batch) + 1) > batch_tokens:
            batches.append(tuple(batch))
            batch = []
        if (size >= SHARD_BYTES or tokens >= SHARD_TOKENS) and not batch:
            yield _Shard(f"{number:05d}.safetensors", tuple(batches), tokens)
            batches, size, tokens, number = [], 0, 0, number + 1
        batch.append(i)
        size += passages[i].rows * row_bytes
        tokens += len(passages[i].ids)
    yield _Shard(f"{number:05d}.safetensors", (*batches, tuple(batch)), tokens)


def _read_shard(
    model: nn.Module,
    blocks: Blocks,
    passages: Sequence[Passage],
    layers: Sequence[int],
    shard: _Shard,
    advance: Callable[[int], None],
) -> bytes:
    """Run the passages of one shard and give the bytes of its file."""
    states: list[Tensor] = []
    passage, offset, place = [], [], []
    for batch in shard.batches:
        chosen = [passages[i] for i in batch]
        states.append(torch.stack(_read_batch(model, blocks, chosen, layers)).cpu())
        for i, one in zip(batch, chosen, strict=True):
            passage += [i] * one.rows
            offset += list(one.offsets[: one.rows])
            place += list(range(one.rows))
        advance(sum(len(passage.ids) for passage in chosen))
    tensors = {
        "states": torch.cat(states, dim=1),
        "passage": torch.tensor(passage, dtype=torch.int32),
        "offset": torch.tensor(offset, dtype=torch.int32),
        "place": torch.tensor(place, dtype=torch.int32),
    }
    # Not save_file: it reports a full disk as an error of its own, and makes private files.
    return save(tensors)


def _read_batch(
    model: nn.Module, blocks: Blocks, batch: Sequence[Passage], layers: Sequence[int]
) -> list[Tensor]:
    """Read one batch, padded on the right, into ``[rows, d_model]`` per layer."""
    device = next(model.parameters()).device
    longest = max(len(passage.ids) for passage in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, passage in enumerate(batch):
        ids[row, : len(passage.ids)] = torch.tensor(passage.ids)
        mask[row, : len(passage.ids)] = 1
    rows = torch.tensor([r for r, p in enumerate(batch) for _ in p.places], device=device)
    columns = torch.tensor([c for p in batch for c in p.places], device=device)
    pooled = any(passage.pooled for passage in batch)

    def select(states: Tensor) -> Tensor:
        picked = states[rows, columns]
        if not pooled:
            return picked
        sums = torch.zeros(len(batch), states.shape[-1], device=device)
        sums.index_add_(0, rows, picked.float())
        counts = torch.bincount(rows, minlength=len(batch))
        return (sums / counts[:, None]).to(states.dtype)

    return read_states(model, blocks, layers, ids.to(device), mask.to(device), select)


def model_key(model: nn.Module) -> str:
    """Hash a few numbers of every weight, and their dtypes, to tell a model from its like."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, parameter in model.named_parameters():
        few = parameter.detach().flatten()[:64].float().cpu()
        digest.update(f"{name} {parameter.dtype}".encode() + few.numpy().tobytes())
    return digest.hexdigest()


def _fingerprint(
    passages: Sequence[Passage],
    layers: Sequence[int],
    dtype: torch.dtype,
    batch_tokens: int,
    model: nn.Module,
    blocks: Blocks,
) -> str:
    plan = [batch_tokens, SHARD_BYTES, SHARD_TOKENS]
    head = [list(layers), str(dtype), plan, blocks.path, model_key(model)]
    digest = hashlib.sha256(json.dumps(head).encode())
    for passage in passages:
        row = passage.ids, passage.places, passage.offsets, passage.pooled
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _claim(folder: Path, key: str) -> None:
    """Mark `folder` as holding this work, or make sure that it already does."""
    mark = folder / KEY
    try:
        ours = mark.read_bytes() == key.encode() if mark.exists() else None
        if ours is False or (ours is None and any(folder.glob(SHARDS))):
            raise TrainingError(
                f"Could not extract into {clean_line(str(folder))!r}: it holds the states of "
                "other texts, layers or another model. Choose another folder or remove it."
            )
        for left_behind in folder.glob(f"*{TEMPORARY}"):
            left_behind.unlink()
        if ours is None:
            _write(mark, key.encode())
    except OSError as error:
        raise TrainingError(
            f"Could not write to {clean_line(str(folder))!r}: {error.strerror}. Choose another "
            "folder."
        ) from error


def _write(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _disk_error(error: OSError, folder: Path, done: int, total: int) -> TrainingError:
    why = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
    return TrainingError(
        f"Could not write states to {clean_line(str(folder))!r}: {why}. {done} of {total} tokens "
        "are done and kept; make room and run the same command again to go on from there."
    )
