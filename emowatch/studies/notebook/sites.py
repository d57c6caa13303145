"""Where a block can be entered: the residual it is given, and what its attention and MLP add.

Tak et al. 2025 number these places 7 (behind the block before), 3 and 6, and edit a copy of each
family's source to reach them. Here they are found by what the modules are called.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from emowatch.errors import TapError
from emowatch.model.blocks import Blocks
from emowatch.model.entrance import Arguments, Entrance
from emowatch.model.residual import hidden_of

Kind = Literal["residual", "attention", "mlp"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_CALLED: Mapping[str, re.Pattern[str]] = {
    "attention": re.compile(r"attention|attn", re.IGNORECASE),
    "mlp": re.compile(r"mlp|feed_?forward|ffn|moe", re.IGNORECASE),
}


class Site(NamedTuple):
    """One place of one block."""

    kind: Kind
    layer: int
    """Number of the block, which is that of the layer it reads. Of ``residual`` it is the layer,
    and the deepest one can be read."""


Push = Callable[[Tensor, Tensor], Tensor]
"""Given numbers of texts ``[rows]`` and what stands at a site at their last token
``[rows, d_model]`` in float32, says what shall stand there."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The blocks of a model with what is found inside them."""

    blocks: Blocks
    inside: Mapping[Kind, tuple[nn.Module, ...]]
    """For ``attention`` and ``mlp``, where each block has exactly one: that of each block."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of sites that this model has."""
        return tuple(kind for kind in KINDS if kind == "residual" or kind in self.inside)


def find_parts(blocks: Blocks) -> Parts:
    """Look for one attention and one MLP among the children of each block.

    One that adds the residual itself, as those of Bloom do, gives out the whole stream and not what
    it adds: it is no such site.
    """
    inside: dict[Kind, tuple[nn.Module, ...]] = {}
    for kind in KINDS[1:]:
        found = [[m for m in block.children() if _kind_of(m) == kind] for block in blocks.blocks]
        if all(len(modules) == 1 and not _adds_residual(modules[0]) for modules in found):
            inside[kind] = tuple(modules[0] for modules in found)
    return Parts(blocks, inside)


def _adds_residual(module: nn.Module) -> bool:
    return "residual" in inspect.signature(module.forward).parameters


def _kind_of(module: nn.Module) -> str | None:
    """Tell by the name of its class; a Qwen3MoeAttention is an attention, a norm is neither."""
    name = type(module).__name__
    if "norm" in name.lower():
        return None
    return next((kind for kind, pattern in _CALLED.items() if pattern.search(name)), None)


@contextmanager
def standing(
    parts: Parts, rows: Tensor, pushes: Mapping[Site, Push], reads: Sequence[Site]
) -> Iterator[dict[Site, Tensor]]:
    """Stand at sites while a forward reads the last token of some texts, and leave afterwards.

    What is read at a site is what was there before it was pushed.

    Args:
        parts: of the model.
        rows: numbers of the texts in the forward.
        pushes: what to do where.
        reads: what to give back.

    Yields:
        What is read, ``[rows, d_model]`` in float32, once the forward is over.
    """
    found: dict[Site, Tensor] = {}

    def at(site: Site, state: Tensor) -> Tensor:
        """Read and push the state ``[rows, 1, d_model]`` of a site."""
        before = state.reshape(len(rows), -1).float()
        if site in reads:
            found[site] = before
        if site not in pushes:
            return state
        return pushes[site](rows, before).to(state.dtype).reshape(state.shape)

    with ExitStack() as stack:
        for site in sorted({*pushes, *reads}):
            stack.callback(_stand(parts, site, at))
        yield found
    missing = [site for site in reads if site not in found]
    if missing:
        raise TapError(f"Nothing came by at {missing[0].kind} of block {missing[0].layer}.")


def _stand(parts: Parts, site: Site, at: Callable[[Site, Tensor], Tensor]) -> Callable[[], None]:
    """Stand at one site; give what leaves it."""
    blocks = parts.blocks
    if site.kind == "residual" and site.layer < blocks.n_layers:

        def change(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
            changed = at(site, hidden_of(args, kwargs))
            if args:
                return (changed, *args[1:]), kwargs
            return args, kwargs | {"hidden_states": changed}

        return Entrance.of(blocks.blocks[site.layer]).add(change=change).remove

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return at(site, output)
        return (at(site, output[0]), *output[1:])

    module = blocks.final_norm if site.kind == "residual" else parts.inside[site.kind][site.layer]
    return module.register_forward_hook(hook).remove


def span_of(kind: Kind, start: int, length: int, n_layers: int) -> tuple[Site, ...]:
    """List the sites of `length` blocks from `start` on, fewer at the end."""
    return tuple(Site(kind, layer) for layer in range(start, min(start + length, n_layers)))


def random_directions(rows: Tensor, width: int, *seeds: int) -> Tensor:
    """Draw a direction of length 1 for each text ``[rows, width]``, the same in any batch."""
    drawn = [np.random.default_rng((row, *seeds)).standard_normal(width) for row in rows.tolist()]
    return nn.functional.normalize(torch.from_numpy(np.stack(drawn)).float(), dim=1)
