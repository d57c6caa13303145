"""Blocks that templates write by themselves: default prompts, dates, tools, channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from emowatch.model.segments import SegmentParser
from tests.model.segments.dialogues import (
    KINDS,
    call,
    encode,
    make_tokenizer,
    read,
    render,
    runs,
    said,
    spoken,
    system,
    tool,
    user,
)
from tests.model.segments.families import BY_NAME

LOOK_UP: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Tell the weather, as a user or an assistant would.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_default_system_prompt_is_a_system_text(kind: str) -> None:
    """The model reads it as one, whoever wrote it."""
    tokenizer = make_tokenizer(BY_NAME["qwen2.5"], kind)
    assert spoken(tokenizer, [user("Hello.")]) == [
        ("system", "You are Qwen. Be a helpful assistant."),
        ("user", "Hello."),
    ]
    assert spoken(tokenizer, [system("Be sad."), user("Hello.")]) == [
        ("system", "Be sad."),
        ("user", "Hello."),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_date_of_a_template_may_change(kind: str) -> None:
    """A watch may be older than a day."""
    tokenizer = make_tokenizer(BY_NAME["llama3"], kind)
    parser = SegmentParser(tokenizer)
    for date in ("26 Jul 2024", "3 March 2031"):
        for told in ("", "Be kind."):
            talk = [system(told), user("Hello.")] if told else [user("Hello.")]
            text = render(tokenizer, talk, add_generation_prompt=True, date_string=date)
            ids, spans = encode(tokenizer, text)
            found = runs(text, spans, parser.parse(ids))
            block = f"Knowledge ends: December 2023\nToday is: {date}\n\n{told}"
            assert [run for run in found if run[0] != "special"] == [
                ("system", block),
                ("user", "Hello."),
            ]


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_told_apart(kind: str) -> None:
    """A block that the template writes first is a system text too, and analysis is thinking."""
    tokenizer = make_tokenizer(BY_NAME["harmony"], kind)
    talk = [system("Be kind."), user("Hello."), said("Hi.", "A greeting.")]
    found = [run for run in read(tokenizer, render(tokenizer, talk)) if run[0] != "special"]
    assert [name for name, _ in found] == ["system", "system", "user", "thinking", "reply"]
    assert [text.strip() for _, text in found][1:] == [
        "# Instructions\n\nBe kind.",
        "Hello.",
        "A greeting.",
        "Hi.",
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", [None, "Be kind."])
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_tools_are_described_in_the_system_text(family: str, told: str | None, kind: str) -> None:
    """Tags of calls are named there, and open none."""
    tokenizer = make_tokenizer(BY_NAME[family], kind)
    talk = [user("Where?"), said("", "", call(1, "Oslo")), tool("Rain."), said("It rains.")]
    messages = [*([system(told)] if told else []), *talk, user("So?")]
    found = spoken(tokenizer, messages, tools=[LOOK_UP])
    assert [name for name, _ in found][:4] == ["system", "user", "tool", "tool"]
    assert "weather" in found[0][1]
    assert (told or "") in found[0][1]
    assert [run for run in found[1:] if run[0] != "tool"] == [
        ("user", "Where?"),
        ("reply", "It rains."),
        ("user", "So?"),
    ]


def test_tools_before_the_last_question_are_part_of_the_system() -> None:
    """Mistral writes them between two messages, in a block with tokens of its own."""
    tokenizer = make_tokenizer(BY_NAME["mistral"], "bpe")
    talk = [user("One?"), said("Two."), user("Three?")]
    for messages in (talk, talk[:1]):
        found = spoken(tokenizer, messages, tools=[LOOK_UP])
        assert "weather" in dict(found)["system"]
        expected = [("user", "One?"), ("reply", "Two."), ("user", "Three?")]
        assert [run for run in found if run[0] != "system"] == expected[: len(messages)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quiet", ["", "/no_think"])
def test_a_block_of_metadata_is_a_system_text(kind: str, quiet: str) -> None:
    """Also where it changes with how the model is to think."""
    tokenizer = make_tokenizer(BY_NAME["smollm3"], kind)
    for told in (quiet, f"Be kind.{quiet}"):
        talk = [system(told), user("Hello."), said("Hi."), user("Well?")]
        found = spoken(tokenizer, talk)
        assert [name for name, _ in found] == ["system", "user", "reply", "user"]
        assert ("/no_think" in found[0][1]) == bool(quiet)
        assert found[2] == ("reply", "Hi.")


@pytest.mark.parametrize("kind", KINDS)
def test_tags_that_a_system_text_explains_open_nothing(kind: str) -> None:
    """Magistral's own system prompt shows how thoughts are written."""
    tokenizer = make_tokenizer(BY_NAME["magistral"], kind)
    found = spoken(tokenizer, [user("Hello."), said("Hi."), user("Well?")])
    assert {name for name, _ in found} == {"system", "user", "reply"}
    assert dict(found)["reply"] == "Hi."
