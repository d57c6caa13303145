"""See from inside a forward which decoding loop of transformers is running it.

``generate`` tells nobody which mode it chose, and the model must not be patched to find out.
The loop is a function on the stack, though, and holds the settings it runs with.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor

from emowatch.errors import UnsupportedError

_LOOPS = {
    "_sample": "",
    "_beam_search": "beam search",
    "_assisted_decoding": "assisted decoding or prompt look-up",
    "_contrastive_search": "contrastive search",
    "_dola_decoding": "DoLa decoding",
    "_group_beam_search": "group beam search",
    "_constrained_beam_search": "constrained beam search",
}
_SETTINGS = ("do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")


@dataclass(frozen=True, slots=True)
class Decoding:
    """The decoding loop that runs the current forward."""

    config: Any
    """The loop's own copy of the generation config: another object for each call."""
    unfinished: Tensor | None
    """``[rows]``: 1 for rows that still speak; `None` where the loop does not say."""
    left: int | None
    """Tokens that the loop may still add; `None` without a limit."""

    def settings(self) -> dict[str, Any]:
        """List what decided how tokens are chosen, as plain values."""
        found = {name: getattr(self.config, name, None) for name in _SETTINGS}
        if not found["do_sample"]:
            for name in ("temperature", "top_p", "top_k"):
                del found[name]
        return {name: value for name, value in found.items() if value is not None}


def current_decoding() -> Decoding:
    """Find the loop on the stack.

    Raises:
        UnsupportedError: where there is none, or one whose states cannot be attributed yet.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_name
        if name in _LOOPS and frame.f_globals.get("__name__") == "transformers.generation.utils":
            if _LOOPS[name]:
                raise UnsupportedError(
                    f"Could not watch {_LOOPS[name]}: its forwards run on candidates that may "
                    "not be in the reply. Use greedy search or sampling (num_beams=1, no "
                    "assistant_model, no prompt_lookup_num_tokens)."
                )
            return _checked(frame.f_locals)
        frame = frame.f_back
    raise UnsupportedError(
        "Could not watch this forward: it does not come from model.generate, so there is no "
        "telling prompt from reply. Call model.generate inside the watch, and anything else "
        "outside it."
    )


def _checked(variables: Mapping[str, Any]) -> Decoding:
    config = variables["generation_config"]
    if not config.use_cache:
        raise UnsupportedError(
            "Could not watch generation with use_cache=False: every forward reads the whole text "
            "again. Leave use_cache at True."
        )
    if config.prefill_chunk_size:
        raise UnsupportedError(
            "Could not watch generation with prefill_chunk_size: the prompt comes in several "
            "forwards. Leave it out."
        )
    implementation = config.cache_implementation
    if implementation not in (None, "dynamic", "dynamic_full"):
        raise UnsupportedError(
            f"Could not watch generation with cache_implementation={implementation!r}. Use the "
            "default dynamic cache."
        )
    cache = variables.get("model_kwargs", {}).get("past_key_values")
    if getattr(cache, "is_compileable", False):
        raise UnsupportedError(
            f"Could not watch generation with a {type(cache).__name__}: transformers compiles it "
            "where it can, and compiled code skips hooks. Use a DynamicCache, or leave it out."
        )
    # max_new_tokens has become a max_length by now, and holds for max_length alone as well.
    longest = config.max_length
    left = None if longest is None else int(longest) - int(variables["input_ids"].shape[1])
    return Decoding(config, variables.get("unfinished_sequences"), left)
