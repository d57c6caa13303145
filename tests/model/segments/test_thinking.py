"""Thoughts in prompts: whole, without an end, without a beginning, opened for the reply."""

from __future__ import annotations

import pytest

from tests.model.segments.dialogues import (
    KINDS,
    make_tokenizer,
    opening,
    read,
    render,
    said,
    spoken,
    user,
)
from tests.model.segments.families import BY_NAME

THOUGHT = "<think>\nPoor cat.\n</think>\n\nOh no."
ASKED, BACK = user("The cat is gone."), user("It came back!")
KEEPING = ["chatml", "llama3", "mistral", "gemma", "phi3", "zephyr", "llama2", "plain"]
"""Templates that keep thoughts which stand in a message's text."""
CASES = [(family, kind) for family in KEEPING for kind in KINDS]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_thoughts_in_a_message_are_parted_from_its_answer(family: str, kind: str) -> None:
    """What a model thinks and what it says may differ in tone: that is what one looks for."""
    tokenizer = make_tokenizer(BY_NAME[family], kind)
    found = [(name, text.strip()) for name, text in spoken(tokenizer, [ASKED, said(THOUGHT), BACK])]
    assert [run for run in found if run[0] != "system"] == [
        ("user", "The cat is gone."),
        ("thinking", "Poor cat."),
        ("reply", "Oh no."),
        ("user", "It came back!"),
    ]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_thoughts_without_an_end_close_with_their_message(family: str, kind: str) -> None:
    """Replies are cut, and the next one must not inherit what was left open."""
    tokenizer = make_tokenizer(BY_NAME[family], kind)
    talk = [ASKED, said("<think>\nPoor cat"), BACK, said("Good."), ASKED]
    found = [(name, text.strip()) for name, text in spoken(tokenizer, talk)]
    assert [run for run in found if run[0] != "system"] == [
        ("user", "The cat is gone."),
        ("thinking", "Poor cat"),
        ("user", "It came back!"),
        ("reply", "Good."),
        ("user", "The cat is gone."),
    ]
    assert opening(tokenizer, render(tokenizer, talk, add_generation_prompt=True)) == "reply"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("are_tags_whole", [True, False])
def test_a_thought_that_the_prompt_began_is_continued(kind: str, are_tags_whole: bool) -> None:
    """`continue_final_message` leaves the thought open, and the reply begins inside it."""
    tokenizer = make_tokenizer(BY_NAME["chatml"], kind, are_tags_whole=are_tags_whole)
    for text, segment in (("<think>\nPoor", "thinking"), (THOUGHT, "reply")):
        prompt = render(tokenizer, [ASKED, said(text)], continue_final_message=True)
        assert opening(tokenizer, prompt) == segment
        assert read(tokenizer, prompt)[-1][0] == segment


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_before_an_end_without_a_beginning_was_thought(kind: str) -> None:
    """The beginning was in the generation prompt, which the message does not repeat."""
    tokenizer = make_tokenizer(BY_NAME["chatml"], kind)
    talk = [ASKED, said("Poor cat.\n</think>\n\nOh no."), BACK]
    assert spoken(tokenizer, talk)[1:3] == [("thinking", "Poor cat."), ("reply", "Oh no.")]
    twice = [ASKED, said("<think>A</think>B</think>C"), BACK]
    names = [name for name, _ in spoken(tokenizer, twice)]
    assert names == ["user", "thinking", "reply", "reply", "user"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("are_tags_whole", [True, False])
def test_a_user_who_types_the_tag_opens_no_thoughts(kind: str, are_tags_whole: bool) -> None:
    """Otherwise one word of the user's would rename every reply."""
    tokenizer = make_tokenizer(BY_NAME["chatml"], kind, are_tags_whole=are_tags_whole)
    talk = [user("what is <think> for?"), said("Oh no."), user("</think>")]
    assert spoken(tokenizer, talk) == [
        ("user", "what is <think> for?"),
        ("reply", "Oh no."),
        ("user", "</think>"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_of_several_tokens_is_a_word_where_it_stands_in_the_middle(kind: str) -> None:
    """Without a token of its own it may just be spoken of."""
    tokenizer = make_tokenizer(BY_NAME["chatml"], kind, are_tags_whole=False)
    text = "The tags are <think> and </think>, as you see."
    assert spoken(tokenizer, [ASKED, said(text), BACK])[1] == ("reply", text)


@pytest.mark.parametrize("kind", KINDS)
def test_thoughts_that_were_switched_off_are_nobodys(kind: str) -> None:
    """An empty pair of tags in the prompt is the template's."""
    tokenizer = make_tokenizer(BY_NAME["qwen3"], kind)
    for options in ({"enable_thinking": False}, {}):
        text = render(tokenizer, [ASKED], add_generation_prompt=True, **options)
        assert opening(tokenizer, text) == "reply"
        assert [name for name, _ in read(tokenizer, text)] == ["special", "user", "special"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("are_tags_whole", [True, False])
def test_a_reply_begins_as_thinking_where_the_prompt_opens_it(
    kind: str, are_tags_whole: bool
) -> None:
    """Some templates end with the opening tag, which then is no reply token."""
    tokenizer = make_tokenizer(BY_NAME["deepseek"], kind, are_tags_whole=are_tags_whole)
    text = render(tokenizer, [ASKED, said("Oh no."), BACK], add_generation_prompt=True)
    assert text.endswith("<think>\n")
    assert opening(tokenizer, text) == "thinking"
    assert opening(tokenizer, text.removesuffix("<think>\n")) == "reply"
    assert read(tokenizer, text)[-1][0] == "special"


@pytest.mark.parametrize("kind", KINDS)
def test_thoughts_may_be_switched_on_by_an_option(kind: str) -> None:
    """The template then opens what it closes otherwise."""
    tokenizer = make_tokenizer(BY_NAME["deepseek v3.1"], kind)
    for thinks, segment in ((True, "thinking"), (False, "reply")):
        text = render(tokenizer, [ASKED], add_generation_prompt=True, thinking=thinks)
        assert opening(tokenizer, text) == segment
        assert [name for name, _ in read(tokenizer, text)] == ["special", "user", "special"]
    tokenizer = make_tokenizer(BY_NAME["glm"], kind)
    for options in ({}, {"enable_thinking": False}):
        text = render(tokenizer, [ASKED], add_generation_prompt=True, **options)
        assert opening(tokenizer, text) == "reply"
        assert read(tokenizer, text)[1:2] == [("user", "The cat is gone.")]


@pytest.mark.parametrize("kind", KINDS)
def test_other_names_of_the_tags_are_known(kind: str) -> None:
    """Each family has its own."""
    for name in ("thinking", "thought", "reasoning", "seed:think"):
        tokenizer = make_tokenizer(BY_NAME["chatml"], kind)
        found = spoken(tokenizer, [ASKED, said(f"<{name}>Poor.</{name}>Oh no."), BACK])
        assert found[1:3] == [("thinking", "Poor."), ("reply", "Oh no.")]
