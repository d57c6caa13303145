"""Extraction against the notebook's way, in one run.

The notebook (course notebook after Tak et al. 2025) runs the whole model, head included, in
batches of 4 with left padding and `output_hidden_states=True`, and takes the last position.

    python -m benchmarks.extraction [--texts 400] [--pairs 5] [--dtype float32]
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.pairs import compare, row
from benchmarks.shapes import goemotions_like, qwen3_50m
from emowatch.model.blocks import find_blocks
from emowatch.workshop.activations import Activations
from emowatch.workshop.extraction import extract
from emowatch.workshop.readouts import Passage


@torch.no_grad()
def notebook_way(model: Any, texts: list[list[int]], layers: list[int]) -> Tensor:
    """Return ``[layers, texts, d_model]``."""
    found = []
    for start in range(0, len(texts), 4):
        batch = texts[start : start + 4]
        longest = max(map(len, batch))
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for r, text in enumerate(batch):
            ids[r, longest - len(text) :] = torch.tensor(text)
            mask[r, longest - len(text) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True
        )
        found.append(torch.stack([output.hidden_states[layer][:, -1] for layer in layers]))
    return torch.cat(found, dim=1)


def our_way(model: Any, texts: list[list[int]], layers: list[int]) -> Tensor:
    """Return the same by emowatch, shards on disk included."""
    passages = [Passage(tuple(text), (len(text) - 1,), (0,)) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        found: Activations = extract(model, find_blocks(model), passages, layers, Path(folder))
        return found.states()


@click.command()
@click.option("--texts", default=400)
@click.option("--pairs", default=5)
@click.option("--dtype", "dtypes", multiple=True, default=("float32", "bfloat16"))
def main(texts: int, pairs: int, dtypes: tuple[str, ...]) -> None:
    """Print ratios for each dtype, all layers and half depth."""
    some = goemotions_like(texts)
    goals = {("float32", 12): "≥ 2.4", ("float32", 6): "≥ 4", ("bfloat16", 12): "≥ 3.5"}
    goals[("bfloat16", 6)] = "≥ 8.5 (on a CPU with bf16 matrix units)"
    row(f"notebook's time / emowatch's, {texts} texts", "median [quartiles]", "goal")
    for name in dtypes:
        model = qwen3_50m(getattr(torch, name))
        for deepest in (12, 6):
            layers = list(range(deepest + 1))
            ratio = compare(
                partial(notebook_way, model, some, layers),
                partial(our_way, model, some, layers),
                pairs=pairs,
            )
            which = "all layers" if deepest == 12 else "layers 0 to 6 (half depth)"
            row(f"{name}, {which}", ratio, goals[(name, deepest)])
            if name == "float32":
                theirs, ours = notebook_way(model, some, layers), our_way(model, some, layers)
                worst = ((theirs - ours).norm(dim=-1) / theirs.norm(dim=-1)).max()
                row("  largest relative difference of a state", f"{worst:.1e}", "≤ 1e-5")


if __name__ == "__main__":
    main()
