"""Read the residual stream of a model through hooks.

Knows tensors and forwards, not tokens, heads or turns. Layer ``l`` is read at the *input* of
block ``l``, so what a block returns (a tensor, a 1-tuple or a 2-tuple, by family and version)
does not matter; layer ``L`` is read at the output of the final norm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from emowatch.errors import ModelError, TapError, UnsupportedError
from emowatch.model.blocks import Blocks


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward pass of the whole model, as the tap saw it."""

    input_ids: Tensor
    """``[rows, slice]``: the tokens this forward read."""
    attention_mask: Tensor | None
    """``[rows, past + slice]``, or `None` where every token counts."""
    past: int
    """Columns already in the cache."""
    states: tuple[Tensor, ...]
    """For each layer of the tap ``[rows, slice, d_model]``."""


class Tap:
    """Hooks on one model, as a context manager; gone afterwards, also after an exception.

    After each forward of `model`, `on_forward` gets a `Forward`. Additions set by `steer`
    change the residual from the next forward on; a layer is read before it is changed.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Blocks,
        layers: Sequence[int],
        on_forward: Callable[[Forward], None],
        on_begin: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; no hook is set before the tap is entered.

        `on_begin` is called before each forward reads anything; it may still change what is
        steered in that forward.

        Raises:
            UnsupportedError: for compiled models, whose hooks are skipped in silence
                (pytorch #117758).
            ModelError: for models without weights in memory.
        """
        check_readable(model)
        self.model = model
        self.blocks = blocks
        self.layers = tuple(layers)
        self._on_forward = on_forward
        self._on_begin = on_begin
        self._states: list[Tensor | None] = [None] * len(self.layers)
        self._handles: list[RemovableHandle] = []
        self._steering: list[RemovableHandle] = []
        self._inputs: tuple[Tensor, Tensor | None, int] | None = None
        self._thread: int | None = None

    def __enter__(self) -> Self:
        """Set the hooks."""
        if self._handles:
            raise TapError("This tap is already on its model; leave it before entering again.")
        try:
            register = self._handles.append
            register(self.model.register_forward_pre_hook(self._begin, with_kwargs=True))
            for slot, layer in enumerate(self.layers):
                if layer < self.blocks.n_layers:
                    block = self.blocks.blocks[layer]
                    hook = self._reader(slot)
                    register(block.register_forward_pre_hook(hook, with_kwargs=True))
                else:
                    register(self.blocks.final_norm.register_forward_hook(self._norm_reader(slot)))
            register(self.model.register_forward_hook(self._end))
            register(self.model.register_forward_hook(self._forget, always_call=True))
        except BaseException:  # some of the hooks must not stay
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the hooks."""
        self.close()

    def close(self) -> None:
        """Remove the hooks; harmless when there are none."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.steer({})
        self._inputs = None
        self._states = [None] * len(self.layers)

    def steer(self, additions: Mapping[int, Tensor]) -> None:
        """Add ``[rows or 1, d_model]`` to every state of these layers from now on.

        The numbers are in units of each state's RMS: ``h += rms(h) * addition``. An empty
        mapping ends steering. Layers must be below the number of blocks.

        Raises:
            TapError: if the tap is not on its model; hooks set now would outlive it.
        """
        if additions and not self._handles:
            raise TapError("Could not steer: this tap is not on its model. Enter it first.")
        for handle in self._steering:
            handle.remove()
        self._steering.clear()
        for layer, addition in additions.items():
            block = self.blocks.blocks[layer]
            self._steering.append(
                block.register_forward_pre_hook(_adder(addition), with_kwargs=True)
            )

    @property
    def steered(self) -> bool:
        """Whether additions are on."""
        return bool(self._steering)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        here = threading.get_ident()
        if self._inputs is not None and self._thread != here and _is_alive(self._thread):
            raise UnsupportedError(
                "Could not watch two forwards at once on one model: another thread is inside "
                "one. Let each generation end before the next begins."
            )
        self._thread = here
        if self._on_begin is not None:
            self._on_begin()
        self._states = [None] * len(self.layers)
        input_ids = args[0] if args else kwargs.get("input_ids")
        if input_ids is None:
            raise UnsupportedError(
                "Could not watch a forward that was given inputs_embeds and no input_ids: "
                "without token ids, tokens cannot be told apart. Pass input_ids."
            )
        # The cache is asked now: after the forward it has grown.
        past = _past(input_ids, kwargs)
        mask = kwargs.get("attention_mask")
        self._inputs = input_ids, mask, past

    def _reader(self, slot: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._states[slot] = _without_graph(hidden_of(args, kwargs))

        return read

    def _norm_reader(self, slot: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def read(module: nn.Module, args: Any, output: Tensor) -> None:
            self._states[slot] = _without_graph(output)

        return read

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        states = self._states
        found = tuple(state for state in states if state is not None)
        if len(found) < len(states):
            missing = [layer for layer, s in zip(self.layers, states, strict=True) if s is None]
            raise TapError(
                f"The hooks of layers {missing} did not fire in a forward of "
                f"{type(self.model).__name__}. The model may have been compiled after watching "
                "began, or another path was found than the one it runs "
                f"({self.blocks.path}); name the right one with blocks=."
            )
        assert self._inputs is not None
        input_ids, mask, past = self._inputs
        self._inputs = None
        self._states = [None] * len(self.layers)
        self._on_forward(Forward(input_ids, mask, past, found))

    def _forget(self, module: nn.Module, args: Any, output: Any) -> None:
        """Note that a forward is over, also one that failed; torch then gives no output.

        A forward that was refused because another thread is inside one ends here too, and
        must leave the other's alone.
        """
        if self._thread == threading.get_ident():
            self._inputs = None
            self._states = [None] * len(self.layers)


def hidden_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the hidden states that a block was called with, by place or by keyword."""
    hidden = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        shape = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise TapError(
            f"A block was called with {shape} where hidden states [rows, time, d_model] were "
            "expected; this model keeps no plain residual stream."
        )
    return hidden


def check_readable(model: nn.Module) -> None:
    """Refuse models whose hooks would be skipped or that hold no numbers.

    Raises:
        UnsupportedError: if the model or a part of it is compiled.
        ModelError: if a weight is on the meta device.
    """
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
            raise UnsupportedError(
                f"Could not watch {type(model).__name__}: {name or 'the model'} is compiled, and "
                "compiled code skips hooks. Watch the model before torch.compile is called on it."
            )
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ModelError(
                f"Could not read {type(model).__name__}: its weight {name} is on the meta device "
                "and has no values. Load the model's weights first."
            )


def _without_graph(states: Tensor) -> Tensor:
    return states.detach() if states.requires_grad else states


def _is_alive(thread: int | None) -> bool:
    return any(one.ident == thread for one in threading.enumerate())


def _adder(
    addition: Tensor,
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]:
    def add(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = hidden_of(args, kwargs)
        rms = hidden.float().pow(2).mean(-1, keepdim=True).sqrt()  # [rows, time, 1]
        changed = hidden + (rms * addition.to(hidden.device)[:, None, :]).to(hidden.dtype)
        if args:
            return (changed, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": changed}

    return add


def _past(input_ids: Tensor, kwargs: Mapping[str, Any]) -> int:
    """Count the columns before this forward's; transformers 5 drops masks of ones."""
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return int(mask.shape[1] - input_ids.shape[1])
    if mask is not None:
        raise UnsupportedError(
            "Could not watch a forward whose attention mask is not [rows, columns]; static "
            "caches prepare such masks. Generate with the default dynamic cache."
        )
    cache = kwargs.get("past_key_values")
    return int(cache.get_seq_length()) if cache is not None else 0
