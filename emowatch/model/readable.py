"""Refuse models whose hooks would be skipped or that hold no numbers, before and while they run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from emowatch.errors import UnsupportedError
from emowatch.model.weights import check_present


def _refuse() -> None:
    raise UnsupportedError(
        "Could not watch a model that was compiled while it was watched. Leave the compiling to "
        'generate (cache_implementation="static"), or watch the model uncompiled.'
    )


refuse_compiled: Callable[[], None] = torch.compiler.disable(_refuse)
"""Called between two pieces of compiled code, so that the error is seen as it is."""


def check_readable(model: nn.Module) -> None:
    """Refuse models whose hooks would be skipped or that hold no numbers.

    Raises:
        UnsupportedError: if the model or a part of it is compiled, or it is split into stages.
        ModelError: if a weight is on the meta device, and nothing loads it before it is used.
    """
    check_uncompiled(model)
    check_present(model)


def check_uncompiled(model: nn.Module) -> None:
    """Refuse a model that is compiled, or a part of which is.

    Raises:
        UnsupportedError: naming the part.
    """
    for name, module in model.named_modules():
        if is_compiled(module):
            raise UnsupportedError(
                f"Could not watch {type(model).__name__}: {name or 'the model'} is compiled, and "
                "compiled code skips hooks. Watch it uncompiled, or leave the compiling to "
                'generate (cache_implementation="static").'
            )


def check_speaks(model: nn.Module) -> None:
    """Refuse a model that generates no text.

    Raises:
        UnsupportedError: for one without a language-model head.
    """
    if not getattr(model, "can_generate", lambda: True)():
        raise UnsupportedError(
            f"Could not watch {type(model).__name__}: it generates no text. A causal language "
            "model is needed, such as AutoModelForCausalLM loads."
        )


def is_compiled(module: nn.Module) -> bool:
    """Tell whether a module, or what it runs, was given to ``torch.compile``."""
    return (
        "_orig_mod" in module._modules  # not by hasattr: what is missing is slow to find
        or getattr(module, "_compiled_call_impl", None) is not None
        or (
            hasattr(module.forward, "_torchdynamo_orig_callable")
            # Also there is what torch.compiler.disable keeps uncompiled.
            and not getattr(module.forward, "_torchdynamo_disable", False)
        )
    )
