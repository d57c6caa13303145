"""Pushing the last token behind a cache is exactly pushing it in the whole prompt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch.model.blocks import find_blocks
from emowatch.studies.notebook.answers import Batch, label_tokens
from emowatch.studies.notebook.sites import KINDS, Kind, Push, Site, find_parts
from tests.model.zoo import hook_count, make_model

PROMPTS = ((5, 9, 40, 41, 77, 12), (8, 100, 61), (33, 34, 35, 36))
ROWS = torch.tensor([4, 7, 9])


def shift(rows: Tensor, states: Tensor) -> Tensor:
    """Do something that depends on the text and on the state."""
    return states * 0.5 + rows[:, None] / 10


def whole(model: nn.Module, site: Site | None, prompt: Sequence[int], row: int) -> Tensor:
    """Push in a forward over the whole prompt alone, by torch's own hooks."""
    blocks = find_blocks(model)
    handles = []

    def changed(states: Tensor) -> Tensor:
        states = states.clone()
        states[:, -1] = shift(torch.tensor([row]), states[:, -1])
        return states

    if site is not None and site.kind == "residual":
        block = blocks.blocks[site.layer]
        handles.append(
            block.register_forward_pre_hook(
                lambda module, args, kwargs: ((changed(args[0]), *args[1:]), kwargs),
                with_kwargs=True,
            )
        )
    elif site is not None:
        inside = find_parts(blocks).inside[site.kind][site.layer]
        handles.append(
            inside.register_forward_hook(
                lambda module, args, output: (
                    changed(output)
                    if isinstance(output, Tensor)
                    else (changed(output[0]), *output[1:])
                )
            )
        )
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3_moe"])
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_push_is_that_of_a_forward_over_the_whole_prompt(family: str, kind: Kind | None) -> None:
    """In batches with padding, with a cache that several interventions share."""
    model = make_model(family)
    parts = find_parts(find_blocks(model))
    assert parts.kinds == KINDS
    batch = Batch(model, parts, ROWS, PROMPTS)
    for layer in range(3):
        site = None if kind is None else Site(kind, layer)
        pushes: dict[Site, Push] = {} if site is None else {site: shift}
        logits, _ = batch.answer(pushes)
        for place, (prompt, row) in enumerate(zip(PROMPTS, ROWS.tolist(), strict=True)):
            wanted = whole(model, site, prompt, row)
            torch.testing.assert_close(logits[place], wanted, rtol=1e-3, atol=1e-3)
    assert hook_count(model) == 0


def test_what_is_read_is_what_was_there_before_the_push(tiny_model: LlamaForCausalLM) -> None:
    """The deepest layer is read too, and is that of transformers."""
    parts = find_parts(find_blocks(tiny_model))
    batch = Batch(tiny_model, parts, ROWS, PROMPTS)
    sites = [Site("residual", layer) for layer in range(4)]
    _, read = batch.answer({sites[0]: shift}, sites[:1])
    _, clean = batch.answer({}, sites)
    assert torch.equal(read[sites[0]], clean[sites[0]])
    with torch.no_grad():
        output = tiny_model(input_ids=torch.tensor([PROMPTS[0]]), output_hidden_states=True)
    for layer, site in enumerate(sites):
        wanted = output.hidden_states[layer][0, -1]
        torch.testing.assert_close(clean[site][0], wanted, rtol=1e-4, atol=1e-4)


def test_a_push_that_fails_leaves_nothing_behind(tiny_model: LlamaForCausalLM) -> None:
    """The model is the user's."""
    parts = find_parts(find_blocks(tiny_model))
    batch = Batch(tiny_model, parts, ROWS, PROMPTS)

    def fail(rows: Tensor, states: Tensor) -> Tensor:
        raise RuntimeError("no")

    for kind in KINDS:
        with pytest.raises(RuntimeError, match="no"):
            batch.answer({Site(kind, 1): fail})
    assert hook_count(tiny_model) == 0


def test_a_model_without_one_mlp_per_block_has_no_such_site() -> None:
    """OPT's two linear layers stand in the block itself."""
    assert find_parts(find_blocks(make_model("opt"))).kinds == ("residual", "attention")


def test_labels_that_begin_alike_cannot_be_told(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """With single bytes for tokens each answer begins with a space."""
    assert label_tokens(tiny_tokenizer, ["joy", "fear"]) is None
