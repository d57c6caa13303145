"""Interventions over many prompts: whole whatever happens on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from emowatch.errors import StudyError
from emowatch.model.blocks import find_blocks
from emowatch.studies.notebook.interventions import UNTOUCHED, knock_outs
from emowatch.studies.notebook.running import run_interventions
from emowatch.studies.notebook.sites import find_parts
from emowatch.workshop.preparation import quiet

PROMPTS = [[5, 9, 40, 41, 77, 12], [8, 100, 61], [33, 34, 35, 36], [7, 9], [50] * 9]


def run(
    model: LlamaForCausalLM, work: Path, tokens: int = 12, key: Sequence[object] = ()
) -> Tensor:
    """Run some knock-outs and keep five logits and the first numbers of the deepest state."""
    parts = find_parts(find_blocks(model))
    return run_interventions(
        model,
        parts,
        PROMPTS,
        [UNTOUCHED, *knock_outs(parts, seed=0)[:6]],
        lambda logits, states: torch.cat([logits[:, :5], states[:, :3]], 1),
        work,
        key=key,
        batch_tokens=tokens,
        report=quiet,
        step="pushing",
    )


def test_results_stand_in_the_order_of_the_prompts(
    tiny_model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """Batches are of like length, and how large they are is no part of the result."""
    found = run(tiny_model, tmp_path)
    assert found.shape == (7, 5, 8)
    with torch.no_grad():
        for place, prompt in enumerate(PROMPTS):
            wanted = tiny_model(input_ids=torch.tensor([prompt])).logits[0, -1, :5]
            torch.testing.assert_close(found[0, place, :5], wanted, rtol=1e-4, atol=1e-4)
    other = run(tiny_model, tmp_path, tokens=1000)
    torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-4)
    assert len(list(tmp_path.glob("interventions-*"))) == 2


def test_a_run_that_was_killed_goes_on(tiny_model: LlamaForCausalLM, tmp_path: Path) -> None:
    """Batches that are finished are kept, byte for byte."""
    found = run(tiny_model, tmp_path)
    batches = sorted(tmp_path.glob("interventions-*/*.safetensors"))
    assert len(batches) > 2
    kept = batches[0].stat().st_mtime_ns
    batches[-1].unlink()
    batches[-1].with_suffix(".part").write_bytes(b"torn")
    assert torch.equal(run(tiny_model, tmp_path), found)
    assert batches[0].stat().st_mtime_ns == kept


def test_other_work_is_kept_apart(tiny_model: LlamaForCausalLM, tmp_path: Path) -> None:
    """Other probes make other pushes under the same names."""
    run(tiny_model, tmp_path, key=["one"])
    run(tiny_model, tmp_path, key=["other"])
    assert len(list(tmp_path.glob("interventions-*"))) == 2


def test_a_damaged_batch_is_refused_by_name(tiny_model: LlamaForCausalLM, tmp_path: Path) -> None:
    """Not silently made again: somebody should know."""
    run(tiny_model, tmp_path)
    batch = min(tmp_path.glob("interventions-*/*.safetensors"))
    batch.write_bytes(batch.read_bytes()[:40])
    with pytest.raises(StudyError, match=rf"{batch.name}.*is damaged.*Remove it"):
        run(tiny_model, tmp_path)
