"""What the doctor found on the models of this process, kept as long as each model lives.

A finding holds for a model as it was: with other weights, another dtype, device, mode or way of
computing attention it is void.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import nn

from emowatch.model.blocks import text_config

_Parameters = list[ref[nn.Parameter]]
_FOUND: WeakKeyDictionary[nn.Module, tuple[Hashable, _Parameters, Mapping[str, Any]]] = (
    WeakKeyDictionary()
)


def remember(model: nn.Module, path: str, certificate: Mapping[str, Any]) -> None:
    """Keep the certificate of a model whose blocks are at `path`, as plain values."""
    _FOUND[model] = _as_it_is(model, path), [ref(p) for p in _lasting(model)], certificate


def recall(model: nn.Module, path: str) -> Mapping[str, Any]:
    """Give the certificate of a model; empty where it was never examined, or is another by now.

    Another is one of other parameters, or whose parameters were written to, moved or cast; in
    training where it was not, or the other way round; with another implementation of attention; or
    read at other blocks. Writing past torch (``parameter.data``) is not noticed.
    """
    if model not in _FOUND:
        return {}
    examined, parameters, certificate = _FOUND[model]
    now = list(_lasting(model))
    if len(now) != len(parameters) or any(
        p is not known() for p, known in zip(now, parameters, strict=True)
    ):
        return {}
    return certificate if examined == _as_it_is(model, path) else {}


def _lasting(model: nn.Module) -> Iterator[nn.Parameter]:
    """List the parameters that are not made anew for each forward, as those put away are."""
    return (p for p in model.parameters() if not p.is_meta)


def _as_it_is(model: nn.Module, path: str) -> Hashable:
    parameters = tuple(
        (name, id(type(p)), tuple(p.shape), p.dtype, str(p.device), _writes(p))
        for name, p in model.named_parameters()
    )
    attention = getattr(text_config(model), "_attn_implementation", None)
    return path, model.training, str(attention), parameters


def _writes(parameter: nn.Parameter) -> int:
    """Count how often a parameter was written to, where torch counts it."""
    # Weights that are put away are made anew for each forward, and those of inference mode have
    # no count.
    if parameter.is_meta or parameter.is_inference():
        return 0
    return int(parameter._version)
