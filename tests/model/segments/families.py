"""Templates with the tokens that their tokenizers have, and what cannot be told in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.model.segments.templates import (
    CHATML,
    GEMMA,
    GEMMA_MERGED,
    HARMONY,
    LLAMA2,
    LLAMA3,
    MAGISTRAL,
    MISTRAL,
    PHI3,
    PLAIN,
    QWEN3,
    QWEN25,
    SMOLLM3,
    ZEPHYR,
)
from tests.model.segments.templates_without_ends import DEEPSEEK, DEEPSEEK_V31, GLM


@dataclass(frozen=True, eq=False)
class Family:
    """A template with its whole tokens, and what cannot be told in it."""

    name: str
    template: str
    special: tuple[str, ...]
    plain: tuple[str, ...] = ()
    """Whole tokens that are not special."""
    told_as: Mapping[str, str] = field(default_factory=dict)
    """Contents that read as another segment, because they are written like it."""
    drops: frozenset[str] = frozenset()
    """Contents that the template may leave out."""
    refuses: frozenset[str] = frozenset()
    """Dialogues that the template refuses."""


_IM = ("<|im_start|>", "<|im_end|>")
_TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>")
_QWEN_TAGS = (*_TAGS, "</tool_response>")
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
_MISTRAL_TOKENS = ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]")
_MISTRAL_ALL = (*_MISTRAL_TOKENS, "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]")
_DEEPSEEK_TOKENS = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
)
_DEEPSEEK_TOOLS = tuple(
    f"<｜tool▁{name}｜>"
    for name in (
        *("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep"),
        *("outputs▁begin", "outputs▁end", "output▁begin", "output▁end"),
    )
)
_HARMONY_TOKENS = tuple(
    f"<|{name}|>" for name in ("start", "message", "channel", "end", "return", "call")
)
_LLAMA3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_ALTERNATING = frozenset({"twice", "late system", "systems"})
_TOOLS = frozenset({"call", "call and words", "two calls", "thinking and call"})
FAMILIES = (
    Family("chatml", CHATML, _IM, _TAGS, drops=frozenset({"call", "thinking"})),
    Family("qwen2.5", QWEN25, _IM, _QWEN_TAGS, drops=frozenset({"thinking"})),
    Family("qwen3", QWEN3, _IM, _QWEN_TAGS, drops=frozenset({"thinking"})),
    Family(
        "deepseek",
        DEEPSEEK,
        (*_DEEPSEEK_TOKENS, *_DEEPSEEK_TOOLS),
        ("<think>", "</think>"),
        drops=frozenset({"thinking"}),
    ),
    Family(
        "deepseek v3.1",
        DEEPSEEK_V31,
        (*_DEEPSEEK_TOKENS, *_DEEPSEEK_TOOLS),
        ("<think>", "</think>"),
        drops=frozenset({"thinking"}),
    ),
    Family(
        "glm",
        GLM,
        ("[gMASK]", "<sop>", *_ROLES, "<|observation|>"),
        (*_QWEN_TAGS, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        drops=frozenset({"thinking"}),
    ),
    Family(
        "llama3",
        LLAMA3,
        (*_LLAMA3_TOKENS, "<|python_tag|>"),
        told_as={"call": "reply"},
        drops=frozenset({"thinking", "reply"}),
        refuses=frozenset({"two calls"}),
    ),
    Family(
        "mistral",
        MISTRAL,
        _MISTRAL_ALL,
        told_as={"system": "user"},
        drops=frozenset({"thinking", "reply"}),
        refuses=_ALTERNATING,
    ),
    Family(
        "magistral",
        MAGISTRAL,
        (*_MISTRAL_ALL, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        ("[THINK]", "[/THINK]"),
        drops=frozenset({"thinking", "reply"}),
    ),
    Family(
        "gemma",
        GEMMA,
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        drops=frozenset({"thinking"}),
        refuses=_ALTERNATING | _TOOLS | {"system"},
    ),
    Family(
        "gemma merged",
        GEMMA_MERGED,
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        told_as={"system": "user"},
        drops=frozenset({"thinking"}),
        refuses=_ALTERNATING | _TOOLS,
    ),
    Family(
        "phi3",
        PHI3,
        (*_ROLES, "<|tool|>", "<|end|>", "<|endoftext|>"),
        drops=frozenset({"thinking", "call"}),
    ),
    Family("zephyr", ZEPHYR, ("</s>",), told_as={}, drops=frozenset({"thinking", "call"})),
    Family("harmony", HARMONY, _HARMONY_TOKENS, drops=frozenset({"thinking", "reply", "system"})),
    Family(
        "smollm3",
        SMOLLM3,
        _IM,
        ("<think>", "</think>"),
        told_as={"tool": "user"},
        drops=frozenset({"thinking", "call", "system"}),
    ),
    Family(
        "llama2",
        LLAMA2,
        ("<s>", "</s>"),
        drops=frozenset({"thinking"}),
        refuses=_TOOLS | {"late system", "systems"},
    ),
    Family(
        "plain",
        PLAIN,
        (),
        drops=frozenset({"thinking", "call"}),
        refuses=frozenset({"late system"}),
    ),
)
BY_NAME = {family.name: family for family in FAMILIES}
