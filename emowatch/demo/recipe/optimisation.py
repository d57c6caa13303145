"""Fit the demo model to token rows, resumably.

Knows nothing of text: batches are a function ``step -> (ids, weights)``, so that a run that
was killed goes on with exactly the batches it would have seen.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from emowatch.errors import TrainingError

Batches = Callable[[int], tuple[Tensor, Tensor]]
CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_EVERY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast one stage learns."""

    steps: int
    peak_lr: float
    warmup: float = 0.03
    """Share of the steps with rising learning rate."""
    fall: float = 1.0
    """Share of the steps, the last ones, in which the rate falls along a cosine."""
    final: float = 0.05
    """Learning rate at the end as a share of the peak."""

    def lr(self, step: int) -> float:
        """Give the learning rate of a step."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.peak_lr * (step + 1) / rise
        first = max(rise, round((1 - self.fall) * self.steps))
        done = max(0, step - first) / max(1, self.steps - first)
        return self.peak_lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done)))


def fit(
    model: LlamaForCausalLM, batches: Batches, schedule: Schedule, folder: Path, *, compiled: bool
) -> float:
    """Train `model` in place and return the mean loss of the last 50 steps.

    Matrices learn by Muon (Jordan et al. 2024), all else by AdamW. A checkpoint is written
    to `folder` every 50 steps and taken up again when the function is called anew.

    Raises:
        TrainingError: if the folder holds the checkpoint of another run.
    """
    device = next(model.parameters()).device
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim != 2 or "embed" in name]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    key = _key(model, schedule)
    step = _resume(model, optimisers, folder, key)
    # Compiled, plain attention over short rows is faster than the fused kernel of the CPU, which
    # takes a third of a step at 512 tokens.
    attention = model.config._attn_implementation
    if compiled and device.type == "cpu":
        model.set_attn_implementation("eager")
    run = torch.compile(_loss, dynamic=False) if compiled else _loss
    losses: list[float] = []
    model.train()
    started, first = time.monotonic(), step
    while step < schedule.steps:
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = schedule.lr(step)
        ids, weights = batches(step)
        loss = run(model, ids.to(device), weights.to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        step += 1
        if step % 10 == 0 or step == schedule.steps:
            rate = (step - first) * ids.numel() / (time.monotonic() - started)
            recent = sum(losses[-10:]) / len(losses[-10:])
            eta = (schedule.steps - step) * ids.numel() / rate / 60
            sys.stderr.write(
                f"{folder.name} {step}/{schedule.steps} loss {recent:.3f} "
                f"{rate:.0f} tokens/s, {eta:.0f} min left\n"
            )
        if step % CHECKPOINT_EVERY == 0 or step == schedule.steps:
            _checkpoint(model, optimisers, step, folder, key)
    model.set_attn_implementation(attention)
    model.eval()
    return sum(losses[-50:]) / max(1, len(losses[-50:]))


def _loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted next-token cross entropy of rows ``[batch, time + 1]``."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=_has_fast_bf16(ids)):
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden)  # [batch, time, vocabulary]
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum().clamp(min=1)


def _has_fast_bf16(ids: Tensor) -> bool:
    """Tell whether matrices in bf16 are faster than in float32, as on most new processors."""
    if ids.is_cuda or torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported()


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> float:
    """Mean next-token loss in nats of held-out rows ``[rows, time + 1]``."""
    model.eval()
    total = count = 0.0
    for rows, row_weights in zip(ids.split(16), weights.split(16), strict=True):
        size = float(row_weights[:, 1:].sum())
        total += float(_loss(model, rows, row_weights)) * size
        count += size
    return total / count


def _key(model: LlamaForCausalLM, schedule: Schedule) -> str:
    """Hash what a run begins with, its weights and its schedule."""
    digest = hashlib.sha256(repr(schedule).encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _checkpoint(
    model: LlamaForCausalLM,
    optimisers: list[torch.optim.Optimizer],
    step: int,
    folder: Path,
    key: str,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model/{k}": v.contiguous().clone() for k, v in model.state_dict().items()}
    del tensors["model/lm_head.weight"]  # tied to the embedding
    for number, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimiser{number}/{index}/{name}"] = torch.as_tensor(value)
    temporary = folder / "checkpoint.part"
    save_file(tensors, temporary, metadata={"step": str(step), "key": key})
    temporary.replace(folder / CHECKPOINT)


def _resume(
    model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer], folder: Path, key: str
) -> int:
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    # The step is read from the same file: beside it, a kill between the two would part them.
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
        if file.metadata().get("key") != key:
            raise TrainingError(
                f"Could not go on from {str(path)!r}: it is of a run that began with other "
                "weights or has another schedule, as where --…-tokens were changed. Name another "
                "work folder, or remove this one."
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model/")}
    model.load_state_dict(weights, strict=False)
    for number, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimiser{number}/"):
                _, index, name = key.split("/")
                state.setdefault(int(index), {})[name] = value
        optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    return step
