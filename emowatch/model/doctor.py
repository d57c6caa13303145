"""Examine a model before its scores are believed: can its states be read, and rightly?

The model is left as it was found. Knows nothing of banks: a healthy model says nothing of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import nn

from emowatch import __version__
from emowatch.model.certificate import Certificate, Check, render_table
from emowatch.model.checks import CHECKS
from emowatch.model.loading import name_of_model
from emowatch.model.patient import Patient

__all__ = ["Certificate", "Check", "examine", "render_table"]


def examine(
    model: nn.Module, tokenizer: Any, *, blocks: str | None = None, name: str = ""
) -> Certificate:
    """Examine how well the states of `model` can be read.

    A check that cannot be run has failed; nothing is raised for it.

    Args:
        model: a decoder-only causal LM of transformers, in any mode.
        tokenizer: its tokenizer, or `None` to leave the chat template out.
        blocks: dotted path of the block list where it is not found by itself.
        name: what the certificate calls the model.

    Example:
        >>> certificate = examine(model, tokenizer)  # doctest: +SKIP
        >>> print(render_table(certificate))  # doctest: +SKIP
    """
    with _left_as_found(model):
        patient = Patient(model, tokenizer, blocks)
        checks = tuple(patient.checked(check) for check in CHECKS)
    return Certificate(
        model=name or name_of_model(model),
        model_class=type(model).__name__,
        emowatch=__version__,
        transformers=transformers.__version__,
        torch=torch.__version__,
        dtype=patient.dtype,
        device=", ".join(sorted({str(p.device) for p in model.parameters()})),
        checks=checks,
    )


@contextmanager
def _left_as_found(model: nn.Module) -> Iterator[None]:
    """Restore random numbers, and the hooks that transformers 5 leaves on every block.

    It sets them when hidden states are first asked for, and a flag by which it knows; one
    without the other would break ``output_hidden_states`` for good.
    """
    flag = "_output_capturing_hooks_installed"
    hooks = [(module, set(module._forward_hooks)) for module in model.modules()]
    flagged = {module for module in model.modules() if flag in vars(module)}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[d.index or 0 for d in devices]):
        try:
            yield
        finally:
            for module, before in hooks:
                for key in set(module._forward_hooks) - before:
                    del module._forward_hooks[key]
                if module not in flagged:
                    vars(module).pop(flag, None)
