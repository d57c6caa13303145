"""Segments of a reply, told before each of its tokens is known."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from emowatch.model.segments import SegmentParser
from tests.model.segments.dialogues import (
    KINDS,
    encode,
    make_tokenizer,
    render,
    runs,
    said,
    user,
)
from tests.model.segments.families import BY_NAME

THOUGHT = "<think>\nPoor cat.\n</think>\n\nOh no."
HEADER = "<|channel|>{}<|message|>"
NEXT = "<|end|>", "<|start|>assistant"


def told(
    family: str, reply: str, kind: str = "bpe", *, are_tags_whole: bool = True, prompt: str = ""
) -> list[tuple[str, str]]:
    """Follow a reply and give its runs of segments, each as it was told before the token."""
    tokenizer = make_tokenizer(BY_NAME[family], kind, are_tags_whole=are_tags_whole)
    prompt = prompt or render(tokenizer, [user("Hello.")], add_generation_prompt=True)
    parser = SegmentParser(tokenizer)
    segments, following = parser.follow(encode(tokenizer, prompt)[0])
    assert segments == parser.parse(encode(tokenizer, prompt)[0])
    ids, spans = encode(tokenizer, reply)
    found = []
    for token in ids:
        found.append(following.segment)
        assert following.take(token) == following.segment
    return runs(reply, spans, found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_counts_to_what_stands_before_it(kind: str) -> None:
    """The score exists before its token, so nobody knows yet that a tag will come."""
    assert told("qwen3", THOUGHT, kind) == [
        ("reply", "<think>"),
        ("thinking", "\nPoor cat.\n</think>"),
        ("reply", "\n\nOh no."),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_tags_of_several_tokens_are_followed(kind: str) -> None:
    """Of the opening tag only the first token counts to the reply."""
    found = told("qwen3", THOUGHT, kind, are_tags_whole=False)
    assert [name for name, _ in found if name != "special"] == ["reply", "thinking", "reply"]
    assert found[0][1] in ("<", "<think>")
    assert dict(found)["thinking"].strip() == "Poor cat.\n</think>"
    assert found[-1][1].strip() == "Oh no."


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("are_tags_whole", [True, False])
def test_thoughts_that_the_prompt_opened_are_followed(kind: str, are_tags_whole: bool) -> None:
    """No token of them may count to the reply."""
    found = told("deepseek", "Poor cat.\n</think>\n\nOh no.", kind, are_tags_whole=are_tags_whole)
    assert [name for name, _ in found] == ["thinking", "reply"]
    assert found[1][1].strip() == "Oh no."


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("are_tags_whole", [True, False])
def test_thoughts_without_an_end_stay_thoughts(kind: str, are_tags_whole: bool) -> None:
    """A reply that was cut while the model was thinking has no answer."""
    found = told("deepseek", "Poor cat. What < to", kind, are_tags_whole=are_tags_whole)
    assert [name for name, _ in found] == ["thinking"]


def test_a_tag_in_the_middle_of_an_answer_is_a_word() -> None:
    """Where it has no token of its own."""
    text = "<b>The</b> <think> tag </think> is odd."
    assert {name for name, _ in told("qwen3", text, are_tags_whole=False)} <= {"reply", "special"}
    assert told("qwen3", "The <think> tag", are_tags_whole=False) == [("reply", "The <think> tag")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_no_reply(kind: str) -> None:
    """Its JSON has no tone."""
    text = 'Let me see.\n<tool_call>\n{"name": "x"}\n</tool_call>'
    for family in ("qwen3", "qwen2.5", "chatml"):
        assert told(family, text, kind) == [
            ("reply", "Let me see.\n<tool_call>"),
            ("tool", '\n{"name": "x"}\n</tool_call>'),
        ]
    found = told("mistral", '[TOOL_CALLS] [{"name": "x"}]', kind)
    assert found == [("reply", "[TOOL_CALLS]"), ("tool", ' [{"name": "x"}]')]


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_followed(kind: str) -> None:
    """The header of a message is nobody's speech, and says whose the next words are."""
    end, start = NEXT
    analysis, final = HEADER.format("analysis"), HEADER.format("final")
    assert told("harmony", f"{analysis}Hm.{end}{start}{final}Oh no.", kind) == [
        ("special", analysis),
        ("thinking", f"Hm.{end}"),
        ("special", f"{start}{final}"),
        ("reply", "Oh no."),
    ]
    assert told("harmony", f"{final}Oh no.", kind) == [("special", final), ("reply", "Oh no.")]


@pytest.mark.parametrize("kind", KINDS)
def test_calls_in_a_channel_are_followed(kind: str) -> None:
    """As the template writes them, and as the model does."""
    end, start = NEXT
    analysis = HEADER.format("analysis")
    for header in (
        " to=functions.look<|channel|>commentary json<|message|>",
        "<|channel|>commentary to=functions.look json<|message|>",
    ):
        found = told("harmony", f'{analysis}Hm.{end}{start}{header}{{"a": 1}}<|call|>', kind)
        assert {name for name, _ in found} == {"special", "thinking", "tool"}
        assert found[-1] == ("tool", found[-1][1])
        assert found[-1][1].endswith('{"a": 1}<|call|>')
    spoken = HEADER.format("commentary")
    assert told("harmony", f"{spoken}I shall look.", kind)[1] == ("reply", "I shall look.")


def test_an_answer_without_a_header_is_a_reply() -> None:
    """One token is lost until it is seen that none will come."""
    assert told("harmony", "Oh no!") == [("special", "Oh"), ("reply", " no!")]


def test_a_text_outside_the_template_is_answered_by_a_reply() -> None:
    """Nothing is known of it, so nothing is claimed; tags still count."""
    assert told("chatml", " time.", prompt="once upon a") == [("reply", " time.")]
    assert [name for name, _ in told("chatml", THOUGHT, prompt="once")] == [
        "reply",
        "thinking",
        "reply",
    ]


def test_rows_of_a_batch_are_followed_apart() -> None:
    """One parser serves all of them."""
    tokenizer = make_tokenizer(BY_NAME["qwen3"], "bytes", are_tags_whole=False)
    parser = SegmentParser(tokenizer)
    prompt = encode(tokenizer, render(tokenizer, [user("Hi.")], add_generation_prompt=True))[0]
    rows = [parser.follow(prompt)[1] for _ in range(2)]
    for one, other in zip(
        *(encode(tokenizer, t)[0] for t in ("<think>a", "<thanks>")), strict=True
    ):
        rows[0].take(one)
        rows[1].take(other)
    assert [row.segment for row in rows] == ["thinking", "reply"]


@pytest.mark.parametrize("kind", KINDS)
def test_following_a_reply_agrees_with_parsing_it(kind: str) -> None:
    """What is told token by token is what the next prompt reads, tags and blank lines aside."""
    tokenizer = make_tokenizer(BY_NAME["chatml"], kind)
    prompt = render(tokenizer, [user("Hello.")], add_generation_prompt=True)
    text = render(tokenizer, [user("Hello."), said(THOUGHT)], continue_final_message=True)
    segments = SegmentParser(tokenizer).parse(encode(tokenizer, text)[0])
    ids, _ = encode(tokenizer, THOUGHT)
    _, following = SegmentParser(tokenizer).follow(encode(tokenizer, prompt)[0])
    for token, segment in zip(ids, segments[-len(ids) :], strict=True):
        assert segment in ("special", following.segment)
        following.take(token)


def test_without_tags_in_the_vocabulary_nothing_is_thinking(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Most models do not think aloud."""
    _, reply = SegmentParser(tiny_tokenizer).follow([])
    assert {reply.take(token) for token in range(len(tiny_tokenizer))} == {"reply"}
