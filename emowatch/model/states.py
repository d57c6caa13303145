"""Read states without generating: one forward, only as deep as asked for, and no head."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from emowatch.errors import TapError
from emowatch.model.blocks import Blocks
from emowatch.model.entrance import Entrance, Place, Read
from emowatch.model.readable import check_readable
from emowatch.model.residual import hidden_of

Select = Callable[[Tensor], Tensor]


class _DeepEnough(Exception):
    """Ends a forward once the deepest layer asked for has been read."""


@torch.no_grad()
def read_states(
    model: nn.Module,
    blocks: Blocks,
    layers: Sequence[int],
    input_ids: Tensor,
    attention_mask: Tensor,
    select: Select | None = None,
) -> list[Tensor]:
    """Run the model only as deep as `layers` ask, without the language-model head.

    Args:
        model: any causal LM; used to find what must not run.
        blocks: where its residual stream is.
        layers: layers to read, ascending.
        input_ids: ``[rows, time]``, padded on either side.
        attention_mask: ``[rows, time]``, 1 for real tokens.
        select: applied to each layer's states as they appear, so that only what is wanted is
            kept in memory.

    Returns:
        For each layer, ``[rows, time, d_model]`` or what `select` made of it.
    """
    check_readable(model)
    pick = select or (lambda states: states)
    found: dict[int, Tensor] = {}
    deepest = max(layers)

    def read_block(layer: int) -> Read:
        def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[layer] = pick(hidden_of(args, kwargs))
            if layer == deepest:
                raise _DeepEnough

        return read

    def read_norm(module: nn.Module, args: Any, output: Tensor) -> None:
        found[blocks.n_layers] = pick(output)

    placed: list[Place | RemovableHandle] = []
    try:
        for layer in layers:
            if layer < blocks.n_layers:
                placed.append(Entrance.of(blocks.blocks[layer]).add(read_block(layer)))
            else:
                placed.append(blocks.final_norm.register_forward_hook(read_norm))
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        accepted = inspect.signature(blocks.decoder.forward).parameters
        if "position_ids" in accepted:  # GPT-2 is off by 110 % without, under left padding
            inputs["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        if "use_cache" in accepted:
            inputs["use_cache"] = False
        try:
            blocks.decoder(**inputs)
        except _DeepEnough:
            pass
    finally:
        for one in placed:
            one.remove()
    missing = [layer for layer in layers if layer not in found]
    if missing:
        raise TapError(f"The hooks of layers {missing} did not fire in {type(model).__name__}.")
    return [found[layer] for layer in layers]
