"""Render a chat template with marked contents and cut the result at the marks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jinja2

from emowatch.model.segments.spelling import Spelling, has_atom

Part: TypeAlias = Literal[
    "start", "system", "user", "assistant", "thinking", "call", "header", "tool", "end"
]
"""What a place in a prompt is in. `call` is a tool call of the assistant's; `header` is an
assistant's message whose kind the model itself has yet to write; `end` is between messages."""


class Run(NamedTuple):
    """What a template writes between two contents."""

    source: Part
    target: Part
    text: str
    """As spelled."""
    is_inside: bool = False
    """Whether both contents are of one message."""


_LETTERS = {
    "s": "system",
    "d": "developer",
    "u": "user",
    "v": "user",
    "a": "assistant",
    "e": "assistant",
    "h": "assistant",
    "c": "assistant",
    "n": "assistant",
    "m": "assistant",
    "C": "assistant",
    "k": "assistant",
    "t": "tool",
}
"""Kinds of message: `v` and `e` are empty, `h` thinks before it speaks, `c` calls a tool, `C`
speaks before that, `k` thinks before that, `m` calls two, and `n` has no content at all."""
_TALKS = (
    # Of two parts that a template opens alike, `_RANKS` of `learning` says which is believed.
    *("u", "uaua", "uaauu", "suaua", "su", "ssu", "uasua", "usu", "du", "uadu"),
    *("uct", "ucttaua", "uCtaua", "uctctua", "ucua", "uata", "unt", "umttaua", "untntua"),
    *("uh", "uhu", "ukta", "uktk", "ukth", "ueu", "vavau"),
)
_THINKING_OR_NOT = ("u", "uaua", "uct")
"""Talks whose last message is also rendered with thinking switched on and off."""
_REFUSALS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What rendering raises where a template has no such dialogue, or is broken."""
_MARK = re.compile("qz(system|user|assistant|thinking|call|tool)([a-z])zq")


def _mark(part: str, number: int) -> str:
    return f"qz{part}{chr(97 + number)}zq"


def _message(letter: str, number: int) -> Mapping[str, Any]:
    role = _LETTERS[letter]
    part = "system" if role == "developer" else role
    said = "" if letter in "veckm" else _mark(part, number)
    message: dict[str, Any] = {"role": role, "content": None if letter == "n" else said}
    if letter in "hk":
        # Each family has its own name for it.
        thought = _mark("thinking", number)
        message |= {"reasoning_content": thought, "reasoning": thought, "thinking": thought}
    if letter in "cnCkm":
        call = _mark("call", number)  # nine letters, as Mistral wants its ids
        function = {"name": call, "arguments": {call: call}}
        made = {"type": "function", "id": call, "function": function}
        message["tool_calls"] = [made] * (2 if letter == "m" else 1)
    if letter == "t":
        message |= {"name": _mark("tool", number), "tool_call_id": _mark("tool", number)}
    return message


def _with_text_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write the arguments of calls as JSON, as some templates want them."""
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(arguments)}}
        for call in message.get("tool_calls", ())
        for arguments in [call["function"]["arguments"]]
    ]
    return {**message, "tool_calls": calls} if calls else message


def rendered_runs(tokenizer: Any, spelling: Spelling) -> Iterator[Run]:
    """Yield what the template writes between contents, over many kinds of dialogue.

    A dialogue that the template refuses is left out, as one with a system message often is.
    """
    found = list(dict.fromkeys(_renderings(tokenizer)))
    for (_, last, is_guess), spelled in zip(
        found, spelling.spell_all([text for text, _, _ in found]), strict=True
    ):
        # Where a role is not known, a template may write it without a name.
        yield from (run for run in _cut(spelled, last) if not is_guess or has_atom(run.text))


def _renderings(tokenizer: Any) -> Iterator[tuple[str, Part, bool]]:
    """Yield rendered dialogues, what they end in, and whether a role in them is a guess."""
    for talk in _TALKS:
        messages = [_message(letter, n) for n, letter in enumerate(talk)]
        closed = _render(tokenizer, messages, is_open=False)
        if closed is None:
            messages = [_with_text_arguments(message) for message in messages]
            closed = _render(tokenizer, messages, is_open=False)
        opened = _render(tokenizer, messages, is_open=True)
        if closed is not None:
            yield closed, "end", "d" in talk
        if opened is not None and opened != closed:
            yield opened, "header", "d" in talk
        for thinks in (True, False) if talk in _THINKING_OR_NOT else ():
            # Each family has its own name for it.
            options = {"enable_thinking": thinks, "thinking": thinks}
            text = _render(tokenizer, messages, is_open=True, **options)
            if text is not None and text not in (opened, closed):
                yield text, "header" if thinks else "assistant", False


def _render(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], is_open: bool, **options: Any
) -> str | None:
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=is_open, **options
        )
    except _REFUSALS:
        return None
    return text


def _cut(spelled: str, last: Part) -> Iterator[Run]:
    before: Part = "start"
    message, place = "", 0
    for mark in _MARK.finditer(spelled):
        part: Part = mark[1]  # type: ignore[assignment]  # as it was written into the mark
        yield Run(before, part, spelled[place : mark.start()], message == mark[2])
        before, message, place = part, mark[2], mark.end()
    if before != "start":
        yield Run(before, last, spelled[place:])
