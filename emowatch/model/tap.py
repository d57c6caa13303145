"""Read the residual stream of a model while it computes.

Knows tensors and forwards, not tokens, heads or turns. Layer ``l`` is read at the *input* of
block ``l``, so what a block returns (a tensor, a 1-tuple or a 2-tuple, by family and version)
does not matter; layer ``L`` is read at the output of the final norm.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from emowatch.errors import TapError, UnsupportedError, UsageError
from emowatch.model.blocks import Blocks
from emowatch.model.entrance import Entrance, Hook, Place, Read
from emowatch.model.forward import Forward
from emowatch.model.readable import check_readable, is_compiled, refuse_compiled
from emowatch.model.residual import Edit, changer, hidden_of, without_graph

_UNREAD: Any = object()
"""Stands for the state of a layer that has not been read."""


class Tap:
    """Hooks on one model, as a context manager; gone afterwards, also after an exception.

    After each forward of `model`, `on_forward` gets a `Forward`. Edits set by `steer` change
    the residual from the next forward on; a layer is read before it is changed.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Blocks,
        layers: Sequence[int],
        on_forward: Callable[[Forward], None],
        on_begin: Callable[[Forward], bool] = lambda _: True,
    ) -> None:
        """Prepare; no hook is set before the tap is entered.

        `on_begin` is called before each forward reads anything, with a `Forward` that has no
        states yet, and tells whether it is to be read at all; it may still change what is steered
        in that forward.

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
        self._states: list[Any] = [_UNREAD] * len(self.layers)
        self._handles: list[RemovableHandle | Place] = []
        self._entrances: dict[int, Entrance] = {}
        """Where it reads, by layer: others may have put something before them since."""
        self._steering: list[Place] = []
        self._running: Forward | None = None
        self._past = 0
        """Columns that were read before the running forward, where it is steered."""
        self._buffer: Tensor | None = None
        """``[layers, rows, 1, d_model]``: where compiled forwards leave states; NaN before."""
        self._thread: int | None = None
        """The thread that is inside a forward; `None` between forwards."""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Set the hooks."""
        if self._handles:
            raise TapError("This tap is already on its model; leave it before entering again.")
        if hasattr(self.model, "_compiled_call"):
            # transformers has compiled it for a static cache. Such code does not notice hooks that
            # come later (pytorch #117758), so that it must be traced again.
            torch.compiler.reset()
        try:
            register = self._handles.append
            register(self.model.register_forward_pre_hook(Hook(self._begin), with_kwargs=True))
            for slot, layer in enumerate(self.layers):
                if layer < self.blocks.n_layers:
                    entrance = Entrance.of(self.blocks.blocks[layer])
                    self._entrances[layer] = entrance
                    register(entrance.add(self._reader(slot)))
                else:
                    hook = Hook(self._norm_reader(slot))
                    register(self.blocks.final_norm.register_forward_hook(hook))
            register(self.model.register_forward_hook(Hook(self._end)))
            register(self.model.register_forward_hook(Hook(self._forget), always_call=True))
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
        for handle in (*self._handles, *self._steering):
            handle.remove()
        self._handles.clear()
        self._steering.clear()
        self._entrances.clear()
        self._running = self._buffer = self._thread = None
        self._states = [_UNREAD] * len(self.layers)

    def expect_compiled(self, states: Sequence[Tensor]) -> None:
        """Let the forwards from here on be compiled, one new token per row.

        Compiled code runs no Python, so that nobody is called then: a forward leaves its states
        in a buffer, from which `states_of_compiled` takes them.

        Args:
            states: those of the last forward that was not compiled, ``[rows, slice, d_model]``.

        Raises:
            UnsupportedError: if they are not all on one device.
        """
        if len({state.device for state in states}) > 1:
            raise UnsupportedError(
                "Could not watch compiled forwards of a model that is spread over several devices. "
                "Pass disable_compile=True to generate."
            )
        rows, _, d_model = states[0].shape
        shape = (len(states), rows, 1, d_model)
        found = self._buffer
        # Another buffer would be compiled for again.
        if found is None or found.shape != shape or found.dtype != states[0].dtype:
            self._buffer = states[0].new_full(shape, torch.nan)
            torch._dynamo.mark_static_address(self._buffer)

    def states_of_compiled(self) -> tuple[Tensor, ...]:
        """Take what the newest compiled forward left, for each layer ``[rows, 1, d_model]``.

        A layer whose hook is not in the compiled code has left NaN.
        """
        assert self._buffer is not None
        states = tuple(self._buffer.clone())
        self._buffer.fill_(torch.nan)
        return states

    def steer(
        self,
        edits: Mapping[int, Edit],
        *,
        prompt: Mapping[int, Edit] | None = None,
        first: int = 0,
    ) -> None:
        """Change the states of these layers from now on; an empty mapping ends steering.

        Columns decide, not forwards: what a forward reads of the prompt and of the reply is
        changed by different edits, however the text is split among forwards.

        Args:
            edits: by layer, below the number of blocks, for the columns from `first` on.
            prompt: by layer, for the columns before `first`; by default they are left.
            first: the first column of the reply, counted in the text with padding.

        Raises:
            TapError: if the tap is not on its model; hooks set now would outlive it.
        """
        before = prompt or {}
        if (edits or before) and not self._handles:
            raise TapError("Could not steer: this tap is not on its model. Enter it first.")
        for place in self._steering:
            place.remove()
        self._steering = [
            (self._entrances.get(layer) or Entrance.of(self.blocks.blocks[layer])).add(
                change=changer(before.get(layer), edits.get(layer), first, self._columns_before)
            )
            for layer in sorted({*edits, *before})
        ]

    @property
    def is_on(self) -> bool:
        """Whether its hooks are set."""
        return bool(self._handles)

    @property
    def steered(self) -> bool:
        """Whether edits are on."""
        return bool(self._steering)

    def _columns_before(self) -> int:
        """Count the columns that were read before the running forward."""
        return self._past

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() and self._buffer is not None:
            return
        if torch.compiler.is_compiling() or is_compiled(self.model):
            refuse_compiled()
        self._take_hold()
        self._running = None
        self._states = [_UNREAD] * len(self.layers)
        input_ids = args[0] if args else kwargs.get("input_ids")
        if input_ids is None:
            raise UnsupportedError(
                "Could not watch a forward that was given inputs_embeds and no input_ids: "
                "without token ids, tokens cannot be told apart. Pass input_ids."
            )
        if not input_ids.numel():
            raise UsageError(
                "Could not watch an empty prompt: a model needs a token to begin with."
            )
        mask = kwargs.get("attention_mask")
        plain = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        cache, places = kwargs.get("past_key_values"), kwargs.get("cache_position")
        is_odd = mask is not None and plain is None
        state = kwargs.get("cache_params", kwargs.get("state")) if cache is None else None
        cache = state if cache is None else cache
        forward = Forward(input_ids, plain, cache, places, is_odd, is_recurrent=state is not None)
        if self._on_begin(forward):
            self._running = forward
        if self._steering:  # asked now: a cache grows with the first block
            self._past = forward.past

    def _take_hold(self) -> None:
        """Let no other thread into a forward before this one is over."""
        here = threading.get_ident()
        with self._lock:
            if self._thread not in (None, here) and _is_inside(self._thread, self.model):
                raise UnsupportedError(
                    "Could not watch two forwards at once on one model: another thread is inside "
                    "one. Let each generation end before the next begins."
                )
            self._thread = here

    def _refuse_inner(self) -> NoReturn:
        """Refuse states of a forward that did not begin with the watched model itself.

        Raises:
            UnsupportedError: as where a wrapper runs the model that it wraps, or the chunks of a
                prompt are read by `model.forward`, as they are before transformers 5.
        """
        raise UnsupportedError(
            f"Could not watch a forward that reached the blocks of {type(self.model).__name__} "
            "past it: a wrapper runs what it wraps, a part was called by itself, gradient "
            "checkpointing computes it again, or a prompt is read in chunks by transformers 4. "
            "Watch the model that generate runs, and leave prefill_chunk_size out."
        )

    def _refuse_again(self, slot: int) -> NoReturn:
        """Refuse a block that runs twice in a forward, whose two states nobody could tell apart.

        Raises:
            TapError: always.
        """
        raise TapError(
            f"The block of layer {self.layers[slot]} ran twice in one forward of "
            f"{type(self.model).__name__}; its states are of no one layer. Models that run blocks "
            "over and over cannot be watched."
        )

    def _reader(self, slot: int) -> Read:
        # It runs for every layer and token, each time out of a cold cache: it calls nothing.
        def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._buffer is not None and torch.compiler.is_compiling():
                self._buffer[slot].copy_(hidden_of(args, kwargs))
            elif self._thread is None:
                self._refuse_inner()
            elif self._states[slot] is not _UNREAD:
                self._refuse_again(slot)
            else:
                self._states[slot] = args[0] if args else kwargs.get("hidden_states")

        return read

    def _norm_reader(self, slot: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def read(module: nn.Module, args: Any, output: Tensor) -> None:
            if self._buffer is not None and torch.compiler.is_compiling():
                self._buffer[slot].copy_(output)
            elif self._thread is None:
                self._refuse_inner()
            else:
                self._states[slot] = output

        return read

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        forward = self._running
        if forward is None:
            return  # not to be read
        states = self._states
        if any(state is _UNREAD for state in states):
            pairs = zip(self.layers, states, strict=True)
            missing = [layer for layer, state in pairs if state is _UNREAD]
            raise TapError(
                f"The hooks of layers {missing} did not fire in a forward of "
                f"{type(self.model).__name__}. The model may have been compiled after watching "
                "began, or another path was found than the one it runs "
                f"({self.blocks.path}); name the right one with blocks=."
            )
        self._running = None
        self._states = [_UNREAD] * len(self.layers)
        if forward.cache is None:  # made by this forward
            forward.cache = getattr(output, "past_key_values", None)
            state = getattr(output, "cache_params", None)
            if forward.cache is None and state is not None:
                forward.read, forward.is_recurrent, forward.cache = forward.past, True, state
        forward.states = tuple(map(without_graph, states))
        self._on_forward(forward)

    def _forget(self, module: nn.Module, args: Any, output: Any) -> None:
        """Note that a forward is over, also one that failed; torch then gives no output.

        A forward that was refused because another thread is inside one ends here too, and
        must leave the other's alone.
        """
        if not torch.compiler.is_compiling() and self._thread == threading.get_ident():
            self._running = None
            self._states = [_UNREAD] * len(self.layers)
            self._thread = None


def _is_inside(thread: int, model: nn.Module) -> bool:
    """Tell whether a thread is in a forward of `model`; an interrupt ends one without a word."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False
