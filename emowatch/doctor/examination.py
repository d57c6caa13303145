"""Run all checks on one model, leave it as it was found, and remember what was found.

Knows nothing of the user's banks: a healthy model says nothing of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import nn

from emowatch import __version__
from emowatch.doctor.certificate import Certificate
from emowatch.doctor.checks import CHECKS, ON_REQUEST
from emowatch.doctor.patient import Patient
from emowatch.model.examined import remember
from emowatch.model.loading import name_of_model


def examine(
    model: nn.Module,
    tokenizer: Any,
    *,
    blocks: str | None = None,
    name: str = "",
    compiled: bool = False,
) -> Certificate:
    """Examine how well `model` can be read and watched.

    A check that cannot be run has failed; nothing is raised for it. Later watches of the same
    model write the certificate into their sessions, as long as the model stays as it is.

    Args:
        model: a decoder-only causal LM of transformers, in any mode.
        tokenizer: its tokenizer, or `None` to leave the chat template out.
        blocks: dotted path of the block list where it is not found by itself.
        name: what the certificate calls the model.
        compiled: whether to compile the model as well, as ``generate`` does for a static cache.
            It takes a minute for a tiny model, and more for a large one.

    Example:
        >>> certificate = examine(model, tokenizer)  # doctest: +SKIP
        >>> print(render_table(certificate))  # doctest: +SKIP
    """
    patient = Patient(model, tokenizer, blocks)
    with _left_as_found(patient.model):
        checks = patient.examined(CHECKS + (ON_REQUEST if compiled else ()))
    certificate = Certificate(
        model=name or name_of_model(model),
        model_class=type(model).__name__,
        emowatch=__version__,
        transformers=transformers.__version__,
        torch=torch.__version__,
        dtype=patient.dtype,
        device=", ".join(sorted({str(p.device) for p in model.parameters()})),
        checks=checks,
    )
    if patient.has_blocks:
        remember(patient.model, patient.blocks.path, certificate.to_json())
    return certificate


@contextmanager
def _left_as_found(model: nn.Module) -> Iterator[None]:
    """Restore random numbers, and what transformers leaves on a model.

    Where hidden states are first asked for, 5 sets hooks on every block, and a flag by which it
    knows; one without the other would break ``output_hidden_states`` for good. Where ``generate``
    compiles or has a static cache, it keeps the code, the cache (4) and its length (5).
    """
    flag = "_output_capturing_hooks_installed"
    code = ("_compiled_call", "_last_compile_config", "_previous_max_cache_length", "_cache")
    hooks = [(module, set(module._forward_hooks)) for module in model.modules()]
    flagged = {module for module in model.modules() if flag in vars(module)}
    kept = {name: vars(model)[name] for name in code if name in vars(model)}
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
            for name in code:
                vars(model).pop(name, None)
            vars(model).update(kept)
