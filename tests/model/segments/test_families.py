"""Every token of every kind of dialogue, in the templates that people use.

What is expected is read from the rendered text, where the contents are known, and not from what
the parser learned.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import jinja2
import pytest

from emowatch.model.segments import SegmentParser
from tests.model.segments.dialogues import (
    DIALOGUES,
    KINDS,
    Message,
    call,
    encode,
    find_contents,
    make_tokenizer,
    render,
    said,
    tool,
    user,
)
from tests.model.segments.families import BY_NAME, FAMILIES, Family

CASES = [(family.name, kind) for family in FAMILIES for kind in KINDS]


@cache
def parser_of(family: str, kind: str, *, are_tags_whole: bool = True) -> SegmentParser:
    """Learn a template once."""
    tokenizer = make_tokenizer(BY_NAME[family], kind, are_tags_whole=are_tags_whole)
    return SegmentParser(tokenizer)


def check(
    name: str,
    kind: str,
    messages: Sequence[Message],
    *,
    is_open: bool,
    are_tags_whole: bool = True,
) -> None:
    """Compare each token's segment with that of the content that it stands in.

    A token of a content has the content's segment. What the template wrote is nobody's speech:
    it is special, or part of a system block or of a call.
    """
    family: Family = BY_NAME[name]
    tokenizer = make_tokenizer(family, kind, are_tags_whole=are_tags_whole)
    text = render(tokenizer, messages, add_generation_prompt=is_open)
    ids, spans = encode(tokenizer, text)
    segments = parser_of(name, kind, are_tags_whole=are_tags_whole).parse(ids)
    assert len(segments) == len(ids)
    owner: list[str | None] = [None] * len(text)
    for content in find_contents(text, messages, family.drops):
        usual = {"call": "tool"}.get(content.kind, content.kind)
        told = family.told_as.get(content.kind, usual)
        owner[content.start : content.end] = [told] * (content.end - content.start)
    others = {"special", "system"} | {told for told in family.told_as.values() if told in owner}
    if any(m["role"] == "tool" for m in messages):
        others.add("tool")
    wrong = []
    for segment, (start, end) in zip(segments, spans, strict=True):
        expected = next((o for o in owner[start:end] if o is not None), None)
        is_blank = not text[start:end].strip()
        if segment == expected or (expected is None and (segment in others or is_blank)):
            continue
        wrong.append((text[start:end], segment, expected))
    assert not wrong, f"{wrong} in {text!r}"


@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize(("family", "kind"), CASES)
def test_every_token_belongs_to_whoever_said_it(family: str, kind: str, dialogue: str) -> None:
    """Scores of the user's words and of the reply mean different things."""
    messages = DIALOGUES[dialogue]
    for is_open in (True, False):
        if dialogue in BY_NAME[family].refuses:
            with pytest.raises((jinja2.TemplateError, TypeError)):
                render(make_tokenizer(BY_NAME[family], kind), messages)
            continue
        check(family, kind, messages, is_open=is_open)


@pytest.mark.parametrize("dialogue", ["thinking", "call", "call and words", "two calls", "lines"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3", "deepseek", "chatml", "magistral"])
def test_tags_of_several_tokens_are_found(family: str, kind: str, dialogue: str) -> None:
    """A tokenizer may lack the tags of the template that was written for another."""
    for is_open in (True, False):
        check(family, kind, DIALOGUES[dialogue], is_open=is_open, are_tags_whole=False)


_WORDS = (
    *("user", "assistant", "system", "tool", "model", "User", "think", "/think", "functions."),
    *("<|", "|>", "[", "]", "</", ">", "<", "{", "}", '"', '": "', ":", "#", "```", "INST", "\\"),
    *(" ", "\n", "\n\n", ".", "?", "im_start", "final", "analysis", "to=", "é", "日", "🙂"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "family", [f.name for f in FAMILIES if f.name not in ("zephyr", "llama2", "plain")]
)
def test_no_content_passes_for_another(family: str, kind: str) -> None:
    """Whatever is said in the words of delimiters, whose tokens of their own cannot be typed."""
    draw = random.Random(0)
    for _ in range(15):
        words = ["".join(draw.choices(_WORDS, k=draw.randint(1, 9))) for _ in range(5)]
        texts = [f"({n}{text}{n})" for n, text in enumerate(words)]
        talk = [user(texts[0]), said(texts[1]), user(texts[2]), said(texts[3]), user(texts[4])]
        check(family, kind, talk, is_open=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3", "deepseek", "mistral", "harmony"])
def test_what_tools_say_passes_for_nobody(family: str, kind: str) -> None:
    """Quotes and brackets in a call, or in what came of it, end neither."""
    for told in ('[{"user": "x"}]', "a]b}c", "(quoted)", "one\n\ntwo: three"):
        talk = [user("Where?"), said("", "", call(1, "Os]lo}x")), tool(told), said("Fine.")]
        text = render(make_tokenizer(BY_NAME[family], kind), [*talk, user("So?")])
        if told in text:  # and not escaped
            check(family, kind, [*talk, user("So?")], is_open=True)
