"""Where weights are that do not simply lie in memory: put away until they are needed, packed into
few bits, or split among processes.

Libraries that put away, pack or split are known by what they leave on a model; none is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from emowatch.errors import ModelError, UnsupportedError


def check_present(model: nn.Module) -> None:
    """Refuse a model whose weights have no values, or that is only a part of one.

    Raises:
        ModelError: for a weight on ``meta`` that nothing loads before it is used.
        UnsupportedError: for a model that is split into pipeline stages, or along the text.
    """
    loaded = {
        id(parameter)
        for module in model.modules()
        if (hook := _loader(module)) is not None
        for parameter in module.parameters(recurse=hook.place_submodules)
    }
    for name, parameter in model.named_parameters():
        if parameter.is_meta and id(parameter) not in loaded:
            raise ModelError(
                f"Could not read {type(model).__name__}: its weight {name} is on the meta device "
                "and has no values. Load the model's weights first."
            )
    if _place(model, "pp")[1] > 1:
        raise UnsupportedError(
            f"Could not watch {type(model).__name__}: it is split into pipeline stages, and each "
            "process has the states of its own blocks alone. Split it by tensors, with tp_plan."
        )
    plan = getattr(model, "_tp_plan", None) or {}
    along = [name for name, style in plan.items() if "sequence" in str(style)]
    if along and process_of(model)[1] > 1:
        raise UnsupportedError(
            f"Could not watch {type(model).__name__}: its tp_plan splits {along[0]} along the "
            "text, and each process has the states of its own tokens alone. Load it without "
            "sequence_parallel."
        )


def process_of(model: nn.Module) -> tuple[int, int]:
    """Say which of the processes that compute the same states this one is, and of how many.

    They are those among which tensor parallelism splits the model: they read the same text and
    have the same states between blocks. ``(0, 1)`` for a model that this process runs by itself,
    also where others run copies of it on texts of their own. Asks no other process.
    """
    return _place(model, "tp")


def numbers_of(parent: nn.Module, name: str) -> list[Tensor]:
    """Give the plain tensors that a weight of `parent` is made of, as they are stored.

    One for most weights, several for packed ones: numbers, scales, offsets. None where this
    process does not hold the weight, or a part of it alone. Asks no other process, and reads no
    more than this weight from disk.
    """
    weight = parent.get_parameter(name)
    if _is_split(weight):
        return []
    if not weight.is_meta:
        return list(_plain(weight.detach()))
    parts = name.split(".")
    for depth in range(len(parts) - 1, -1, -1):  # the hook of the nearest module that has one
        hook = _loader(parent.get_submodule(".".join(parts[:depth])))
        if hook is not None and (depth == len(parts) - 1 or hook.place_submodules):
            return list(_plain(hook.weights_map[".".join(parts[depth:])].detach()))
    return []


def _loader(module: nn.Module) -> Any:
    """Find accelerate's hook that brings a module its weights before each forward."""
    found = getattr(module, "_hf_hook", None)
    for hook in getattr(found, "hooks", (found,)):
        if getattr(hook, "offload", False) and getattr(hook, "weights_map", None) is not None:
            return hook
    return None


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    """Take a tensor of a library's own class apart, until plain ones are left."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    for name in flatten()[0]:
        yield from _plain(getattr(tensor, name))


def _place(model: nn.Module, axis: str) -> tuple[int, int]:
    """Give this process's place and their number along one axis of the mesh of a split model.

    A mesh without names is one of tensor parallelism, but for FSDP: there each process has a
    text of its own.
    """
    mesh = getattr(model, "_device_mesh", None)  # where transformers has split it
    if mesh is None:
        split: Any = next((p for p in model.parameters() if _is_split(p)), None)
        mesh = None if split is None else split.device_mesh
    own = None if mesh is None else mesh.get_coordinate()
    if mesh is None or own is None:
        return 0, 1
    names = mesh.mesh_dim_names
    if names is not None and axis in names:
        dim = names.index(axis)
    elif axis == "tp" and mesh.ndim == 1 and not names and not _is_fsdp(model):
        dim = 0
    else:
        return 0, 1
    return int(own[dim]), int(mesh.size(dim))


def _is_split(weight: Tensor) -> bool:
    """Tell whether a weight is a DTensor, whose class not every build of torch has."""
    return hasattr(weight, "device_mesh") and hasattr(weight, "placements")


def _is_fsdp(model: nn.Module) -> bool:
    return any(type(module).__name__.startswith("FSDP") for module in model.modules())
