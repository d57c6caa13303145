"""See from inside a forward which decoding loop of transformers is running it.

``generate`` tells nobody which mode it chose, and the model must not be patched to find out.
The loop is a function on the stack, though, and holds the settings it runs with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from emowatch.errors import UnsupportedError

Loop = Literal["steps", "assisted", "beams", "own"]
"""How a loop goes on: a token per row and forward; several candidates of which some are kept;
rows that are reordered and chosen from at the end; or by the caller's own calls of the model."""

_UTILS = "transformers.generation.utils"
_FOLLOWED: dict[str, Loop] = {
    "_sample": "steps",
    "_assisted_decoding": "assisted",
    "_beam_search": "beams",
}
_REFUSED = {
    "_contrastive_search": "contrastive search",
    "_dola_decoding": "DoLa decoding",
    "_group_beam_search": "group beam search",
    "_constrained_beam_search": "constrained beam search",
    "generate": "a decoding loop that is not one of transformers' own",
}
_SIDE = ("transformers.generation.logits_process", "transformers.generation.stopping_criteria")
"""Modules whose functions a loop calls between its own forwards."""
_CALLING = ("emowatch.watching.", "emowatch.model.", "torch.nn.modules.module")
"""What stands between a loop and a watch that hears its forward begin."""
_CONTINUOUS = "transformers.generation.continuous_batching"
_SETTINGS = (
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "num_beams",
    "max_new_tokens",
)


@dataclass(slots=True)  # not frozen: that would double what it takes to make one at each forward
class Decoding:
    """The decoding loop that runs the current forward; not to be changed."""

    loop: Loop
    config: Any = None
    """The loop's own copy of the generation config: another object for each call."""
    ids: Tensor | None = None
    """``[rows, columns]``: the tokens kept before this forward, or those of them that
    ``generate`` was given; `None` for the caller's own loop."""
    mask: Tensor | None = None
    """``[rows, columns]``, 0 for padding, at least as far as this forward reads; `None` where
    every token counts."""
    length: int | None = None
    """Columns of the text when the loop began, with those in the cache; `None` where unsaid."""
    unfinished: Tensor | None = None
    """``[rows]``: 1 for rows that still speak; `None` where the loop does not say."""
    candidates: int = 0
    """Of the columns that this forward reads, those at its end that may yet be rejected."""
    chunked: bool = False
    """Whether the prompt comes in several forwards."""
    unread: int | None = None
    """Columns of a chunked prompt that were not in the cache, while they are read."""
    compiled: bool = False
    """Whether the forwards after the prompt's run as compiled code."""
    criteria: list[Any] | None = None
    """The loop's own list of stopping criteria."""
    frame: FrameType | None = None
    """The running beam search, whose choice is known when it is over."""

    @property
    def rereads(self) -> bool:
        """Whether every forward reads the whole text again."""
        return self.config is not None and not self.config.use_cache

    @property
    def left(self) -> int | None:
        """Tokens that the loop may still add; `None` without a limit."""
        # max_new_tokens has become a max_length by now, and holds for max_length alone as well.
        longest = getattr(self.config, "max_length", None)
        if longest is None or self.ids is None:
            return None
        return int(longest) - int(self.ids.shape[1])

    @property
    def returned(self) -> int:
        """Sequences that beam search returns for each text, of the rows it runs for it."""
        return int(self.config.num_return_sequences or 1)

    @property
    def beams(self) -> int:
        """Rows that run for each text; 1 but for beam search."""
        return int(self.config.num_beams or 1) if self.loop == "beams" else 1

    def settings(self) -> dict[str, Any]:
        """List what decided how tokens are chosen, as plain values; nothing of an own loop."""
        if self.config is None:
            return {}
        found = {name: getattr(self.config, name, None) for name in _SETTINGS}
        if not found["do_sample"]:
            for name in ("temperature", "top_p", "top_k"):
                del found[name]
        if self.loop != "beams":
            del found["num_beams"]
        return {name: value for name, value in found.items() if value is not None}


class Listener:
    """Stands last among a loop's stopping criteria, hears what was kept, and may end rows.

    The list is the loop's own and goes with it; neither the model nor the caller's criteria are
    touched.
    """

    def __init__(
        self,
        on_kept: Callable[[Any, Tensor, Tensor | None, int | None], Sequence[bool]],
        on_gone: Callable[[Any], None],
        subject: Any,
    ) -> None:
        """Tell `on_kept` the subject, the tokens kept so far ``[rows, columns]``, which rows the
        criteria before this one have ended ``[rows]``, and the loop's place for `is_called_at`,
        `None` where what is ended is not known yet; it answers which rows are to end, or nothing.
        And tell `on_gone` the subject when the loop lets its list go."""
        self._on_kept = on_kept
        self._on_gone = on_gone
        self._subject = subject

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> bool | Tensor:
        """Hear of a step; end the rows that are to end."""
        criteria = sys._getframe(1)
        variables, loop, place = criteria.f_locals, criteria.f_back, None
        asked = variables.get("self") or [None]
        # Where another is asked after this one, as that of a second watch, it may end rows as well.
        if loop is not None and loop.f_code.co_name in _FOLLOWED and asked[-1] is self:
            place = id(loop)
        ends = self._on_kept(self._subject, input_ids, variables.get("is_done"), place)
        return input_ids.new_tensor(ends, dtype=torch.bool) if any(ends) else False

    def __del__(self) -> None:
        """The loop has returned, or failed and is forgotten."""
        self._on_gone(self._subject)


def current_decoding(model: nn.Module, *, is_between: bool = False) -> Decoding | None:
    """Find the loop on the stack.

    Args:
        model: the model whose forward is running.
        is_between: whether this is asked between forwards, by what the loop calls there.

    Returns:
        The loop, or `None` for a forward that is none of its own: one that drafts candidates, over
        which the loop's own forward comes later; or that a logits processor (as of guidance), a
        stopping criterion, a streamer or a plugin asks for.

    Raises:
        UnsupportedError: for a loop whose states cannot be attributed to returned tokens.
    """
    prefill: Mapping[str, Any] = {}
    drafts = aside = streams = False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name, module, inner = frame.f_code.co_name, frame.f_globals.get("__name__", ""), frame
        frame = frame.f_back
        if module.startswith(_CONTINUOUS):
            raise UnsupportedError(
                "Could not watch generate_batch: continuous batching packs several requests into "
                "one row and does not say which token is whose. Call model.generate with a batch "
                "that is padded on the left."
            )
        if module != _UTILS:
            aside |= module in _SIDE or module == "emowatch.dispatch"
            # A streamer's method; outside a loop the name says nothing.
            streams |= name == "put"
            continue
        if name in ("_prefill", "_prefill_chunking"):
            prefill = inner.f_locals
        elif name in _REFUSED and not drafts:
            if streams and not is_between:  # generate tells a streamer of the prompt by itself
                return None
            raise UnsupportedError(
                f"Could not watch {_REFUSED[name]}: there is no telling which of its forwards "
                "belong to the reply. Use greedy search, sampling, beam search or assisted "
                "decoding."
            )
        elif name in _FOLLOWED:
            if (aside or streams) and not is_between:
                return None
            variables = inner.f_locals
            if drafts:
                if name == "_assisted_decoding" and variables["self"] is model:
                    return None
                break
            config = variables["generation_config"]
            if not config.is_assistant:
                return _of_loop(_FOLLOWED[name], inner, variables, config, prefill)
            drafts = True
    if drafts:
        raise UnsupportedError(
            "Could not watch an assistant model: its tokens are candidates that another model "
            "accepts or rejects. Watch the model that generate was called on."
        )
    return None if aside else Decoding("own")


def is_called_at(place: int) -> bool:
    """Tell whether a loop itself called the module whose hook asks, by the loop's place that a
    `Listener` told just before; a streamer or whoever else is between is not the loop.

    The place stands for a frame, which must not be kept: it holds the loop's cache and criteria.
    Once the loop is gone it may be another's.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_CALLING):
        frame = frame.f_back
    return frame is not None and id(frame) == place


def is_generating() -> bool:
    """Tell whether this is called from inside transformers' ``generate``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "") == _UTILS:
            return True
        frame = frame.f_back
    return False


def is_between_forwards() -> bool:
    """Tell whether transformers' loop is running, and not ``generate`` that is still preparing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "") == _UTILS:
            if frame.f_code.co_name in _FOLLOWED:
                return True
            if frame.f_code.co_name == "generate":
                return False
        frame = frame.f_back
    return True


def _of_loop(
    loop: Loop,
    frame: FrameType,
    variables: Mapping[str, Any],
    config: Any,
    prefill: Mapping[str, Any],
) -> Decoding:
    kept: Tensor = variables["input_ids"]
    candidates, unread = 0, None
    if loop == "beams":
        kept = variables.get("flat_running_sequences", kept)
    elif loop == "assisted":
        candidates = int(variables["candidate_input_ids"].shape[1] - kept.shape[1])
    mask = prefill.get("attention_mask")
    if mask is None:
        mask = variables.get("model_kwargs", {}).get("attention_mask")
    if isinstance(chunked := prefill.get("prefill_ids"), Tensor):
        unread = int(chunked.shape[1])
    length = getattr(config, "_mask_length", None)  # 5 drops masks of ones and leaves this
    if isinstance(mask, Tensor) and mask.ndim == 2:
        length = int(mask.shape[1])
    else:
        mask = None
    return Decoding(
        loop=loop,
        config=config,
        ids=kept,
        mask=mask,
        length=length,
        unfinished=variables.get("unfinished_sequences") if loop == "steps" else None,
        candidates=candidates,
        chunked=bool(config.prefill_chunk_size),
        unread=unread,
        compiled=hasattr(variables.get("model_forward"), "_torchdynamo_orig_callable"),
        criteria=variables.get("stopping_criteria"),
        frame=frame if loop == "beams" else None,
    )
