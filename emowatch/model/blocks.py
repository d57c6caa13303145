"""Find the residual stream of any decoder: its blocks, its final norm, its width.

By structure: the blocks are a ``ModuleList`` of ``num_hidden_layers`` modules, the final norm is
the module beside it that holds nothing but vectors of the residual stream's width. Names decide
only where several fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from emowatch.errors import ModelError, UnsupportedError, UsageError
from emowatch.text import clean_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Where the residual stream of a model can be read.

    Layer ``l`` below `n_layers` is the input of ``blocks[l]``; layer `n_layers` is the output
    of `final_norm`: exactly ``hidden_states[l]`` of transformers.
    """

    decoder: nn.Module
    """The module that holds the blocks; what runs without the language-model head."""
    blocks: nn.ModuleList
    final_norm: nn.Module
    path: str
    """Dotted path of `blocks` inside the model."""
    d_model: int

    @property
    def n_layers(self) -> int:
        """Number of blocks, and the number of the deepest layer."""
        return len(self.blocks)


def find_blocks(model: nn.Module, override: str | None = None) -> Blocks:
    """Find the blocks of `model`.

    `override` is the dotted path of the block list where the search fails or finds the wrong
    one, such as ``"model.layers"``.

    Raises:
        UnsupportedError: for encoder-decoder models, and where nothing fits.
    """
    config = text_config(model)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(
            f"Could not watch {type(model).__name__}: it is an encoder-decoder model, and layers "
            "are defined for decoder-only language models."
        )
    count = getattr(config, "num_hidden_layers", None)
    width = getattr(config, "hidden_size", None)
    if not isinstance(count, int) or not isinstance(width, int):
        raise ModelError(
            f"Could not read the shape of {type(model).__name__}: its config has no "
            "num_hidden_layers or hidden_size."
        )
    path = override or _search(model, count, width)
    try:
        found = model.get_submodule(path)
    except AttributeError as error:
        lists = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
        raise UsageError(
            f"Could not find blocks at {clean_line(path)!r}: {clean_line(str(error))}. The "
            f"lists of modules in this model: {clean_line(', '.join(lists)) or 'none'}."
        ) from error
    if not isinstance(found, nn.ModuleList) or len(found) == 0:
        raise UsageError(
            f"Could not use {path!r} as blocks: it is a {type(found).__name__}, "
            "and a non-empty ModuleList is needed."
        )
    if len(set(found)) < len(found):
        raise UnsupportedError(
            f"Could not watch {type(model).__name__}: one block stands at several places of "
            f"{path}, so that nobody can tell which layer a state is of."
        )
    parent = model.get_submodule(path.rpartition(".")[0])
    return Blocks(
        decoder=parent,
        blocks=found,
        final_norm=_final_norm(parent, path, width),
        path=path,
        d_model=width,
    )


def text_config(model: nn.Module) -> Any:
    """Return the config of the language part, also of a model that has several parts."""
    config = getattr(model, "config", None)
    getter = getattr(config, "get_text_config", None)
    return getter(decoder=True) if callable(getter) else config


def resolve_layers(spec: str | int | Iterable[int], n_layers: int) -> tuple[int, ...]:
    """Turn ``"all"``, ``"0,9,18"``, ``"25%,50%"``, a number or numbers into sorted layers.

    Raises:
        UsageError: for a layer outside 0…`n_layers`, or words that are none of these.
    """
    if isinstance(spec, int):
        parts: list[str | int] = [spec]
    elif isinstance(spec, str):
        if spec.strip() == "all":
            return tuple(range(n_layers + 1))
        parts = [part.strip() for part in spec.split(",") if part.strip()]
    else:
        parts = list(spec)
    layers = set()
    for part in parts:
        layers.add(_resolve_layer(part, n_layers))
    if not layers:
        raise UsageError("No layer was named: use all, numbers as in 0,9,18, or 25%,50%.")
    return tuple(sorted(layers))


def _resolve_layer(part: str | int, n_layers: int) -> int:
    text = str(part)
    try:
        if text.endswith("%"):
            share = float(text[:-1])
            layer = round(share / 100 * n_layers) if 0 <= share <= 100 else -1
        else:
            layer = int(text)
    except ValueError:
        raise UsageError(
            f"Could not read {text!r} as a layer: use all, numbers as in 0,9,18, or 25%,50%."
        ) from None
    if not 0 <= layer <= n_layers:
        raise UsageError(
            f"There is no layer {text} in this model: its layers are 0 (the embedding) to "
            f"{n_layers} (after the final norm)."
        )
    return layer


def _search(model: nn.Module, count: int, width: int) -> str:
    """Give the path of the list that holds the blocks.

    Where several lists have as many modules, those called layers or blocks come first, then
    those with a norm beside them, then those that the model lists first.
    """
    lists: dict[str, nn.ModuleList] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    }
    fitting = [name for name, module in lists.items() if len(module) == count]
    if fitting:
        return max(
            fitting,
            key=lambda name: (
                all(type(item).__name__.endswith(("Layer", "Block")) for item in lists[name]),
                bool(_norms(model.get_submodule(name.rpartition(".")[0]), name, width)),
            ),
        )
    listed = [f"{name} ({len(m)} × {type(m[0]).__name__})" for name, m in lists.items()]
    raise UnsupportedError(
        f"Could not find the {count} blocks of {type(model).__name__}. Name the list that holds "
        'them with --blocks, as in --blocks model.layers; in Python, blocks="model.layers". '
        f"Lists in this model: {', '.join(listed) or 'none'}."
    )


def _final_norm(parent: nn.Module, path: str, width: int) -> nn.Module:
    """Take the norm beside the block list; where there are several, one that comes after it."""
    norms = _norms(parent, path, width)
    if not norms:
        raise UnsupportedError(
            f"Could not find the final norm beside {path!r}: none of "
            f"{', '.join(name for name, _ in parent.named_children())} is a norm."
        )
    return max(norms, key=lambda found: found[0])[1]


def _norms(
    parent: nn.Module, path: str, width: int
) -> list[tuple[tuple[bool, bool, bool], nn.Module]]:
    """Find what may be a norm among the children of `parent`.

    With each: whether it comes after the blocks, has a norm's parameters, and a norm's name. A
    norm without parameters is known by its name only.
    """
    own_name = path.rpartition(".")[2]
    after = False
    found = []
    for name, child in parent.named_children():
        after = after or name == own_name
        shapes = [tuple(parameter.shape) for parameter in child.parameters()]
        structure = bool(shapes) and all(shape == (width,) for shape in shapes)
        called = "norm" in type(child).__name__.lower()
        if name != own_name and (structure or called):
            found.append(((after, structure, called), child))
    return found
