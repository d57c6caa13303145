"""What holds for every template, and what is made of text that follows none."""

from __future__ import annotations

from functools import cache
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from emowatch.model.segments import SegmentParser
from tests.model.segments.dialogues import (
    KINDS,
    call,
    encode,
    make_tokenizer,
    opening,
    read,
    render,
    said,
    spoken,
    system,
    tool,
    user,
)
from tests.model.segments.families import BY_NAME, Family
from tests.model.segments.templates import CHATML

TALK = [system("Be kind."), user("The cat is gone."), said("Oh no."), user("It came back!")]
WHOLE_TALK = [
    ("system", "Be kind."),
    ("user", "The cat is gone."),
    ("reply", "Oh no."),
    ("user", "It came back!"),
]


def chatml(kind: str = "bpe", template: str = CHATML) -> PreTrainedTokenizerFast:
    """Build a tokenizer with the tokens of ChatML and a template of our choice."""
    family = BY_NAME["chatml"]
    return make_tokenizer(Family("chatml", template, family.special, family.plain), kind)


def without_template() -> PreTrainedTokenizerFast:
    """Build the tokenizer of a base model."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    build: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = build(tokenizer_object=core)
    return tokenizer


@cache
def parser_of(kind: str) -> SegmentParser:
    """Learn ChatML once."""
    return SegmentParser(make_tokenizer(BY_NAME["chatml"], kind))


class Letters(PreTrainedTokenizer):
    """A tokenizer in pure Python, which cannot say where a token stands in the text."""

    @property
    def vocab_size(self) -> int:
        """Count the letters."""
        return 1000

    def get_vocab(self) -> dict[str, int]:
        """Give each letter its number."""
        return {chr(n): n for n in range(1000)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return ord(token)

    def _convert_id_to_token(self, index: int) -> str:
        return chr(index)


def test_the_parts_of_a_dialogue_are_told_apart(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Scores of the user's words and of the reply mean different things."""
    assert spoken(tiny_tokenizer, TALK) == WHOLE_TALK


def test_what_the_template_writes_is_special() -> None:
    """Role names and line breaks are nobody's words."""
    text = render(chatml(), TALK[1:2], add_generation_prompt=True)
    assert read(chatml(), text) == [
        ("special", "<|im_start|>user\n"),
        ("user", "The cat is gone."),
        ("special", "<|im_end|>\n<|im_start|>assistant\n"),
    ]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(first=st.text(max_size=30), second=st.text(max_size=30))
def test_no_text_moves_the_edge_of_its_message(kind: str, first: str, second: str) -> None:
    """A token that reaches over the edge counts to the message; all others to their own side."""
    family = BY_NAME["chatml"]
    if any(tag in f"{first} {second}" for tag in (*family.special, *family.plain)):
        return  # it would be the delimiter itself
    tokenizer = make_tokenizer(family, kind)
    second = f"x{second}"  # a tag at the start would be one
    parts = ["<|im_start|>user\n", first, "<|im_end|>\n<|im_start|>assistant\n", second]
    text = "".join([*parts, "<|im_end|>\n"])
    owners = ["special"] * len(parts[0]) + ["user"] * len(first)
    owners += ["special"] * len(parts[2]) + ["reply"] * len(second) + ["special"] * 11
    ids, spans = encode(tokenizer, text)
    for segment, (start, end) in zip(parser_of(kind).parse(ids), spans, strict=True):
        owner = next((o for o in owners[start:end] if o != "special"), "special")
        assert segment == owner or not text[start:end].strip()


def test_a_token_over_the_edge_counts_to_the_message() -> None:
    """Here the question mark and the line break before the next name are one token."""
    tokenizer = make_tokenizer(BY_NAME["plain"], "bpe")
    text = render(tokenizer, [user("Why?"), said("Why?")])
    assert len(tokenizer("?\n")["input_ids"]) == 1
    assert read(tokenizer, text) == [
        ("special", "User:"),
        ("user", " Why?\n"),
        ("special", "Assistant:"),
        ("reply", " Why?\n"),
    ]


def test_without_a_template_all_of_a_prompt_is_the_users() -> None:
    """A base model has no template, and whoever typed the text is its user."""
    assert read(without_template(), "once upon a time") == [("user", "once upon a time")]
    assert opening(without_template(), "<think>hm") == "reply"
    assert SegmentParser(without_template()).parse([]) == []


def test_without_a_tokenizer_all_of_a_prompt_is_the_users() -> None:
    """A watch may be given none; ids are then all there is."""
    segments, reply = SegmentParser(None).follow([5, 6])
    assert (segments, reply.segment) == (["user", "user"], "reply")


@pytest.mark.parametrize("family", ["chatml", "deepseek", "plain", "harmony"])
def test_a_text_that_does_not_follow_the_template_is_the_users(family: str) -> None:
    """Plain completion with a chat model."""
    tokenizer = make_tokenizer(BY_NAME[family], "bpe")
    assert read(tokenizer, "once upon a time") == [("user", "once upon a time")]
    assert opening(tokenizer, "once <think>hm") == "reply"


@pytest.mark.parametrize(
    "broken",
    ["{{ 1 + 'a' }}", "{{ raise_exception('no') }}", "{{ messages[9].content }}", "{{ 1 / 0 }}"],
)
def test_a_template_that_cannot_be_rendered_is_no_error(broken: str) -> None:
    """A broken template is the model's defect, and scores do not need it."""
    assert read(chatml(template=broken), "hm") == [("user", "hm")]


def test_a_tokenizer_in_pure_python_is_learned_too() -> None:
    """Nothing is asked of it but ids and their text."""
    build: Any = Letters
    tokenizer = build(additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHATML
    text = render(tokenizer, TALK)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    segments = SegmentParser(tokenizer).parse(ids)
    assert "".join(chr(i) for i, s in zip(ids, segments, strict=True) if s == "reply") == "Oh no."


def test_ids_beyond_the_vocabulary_are_no_error() -> None:
    """Embeddings are padded to a round number, and a random model says those tokens as well."""
    tokenizer = make_tokenizer(BY_NAME["chatml"], "bytes")
    assert SegmentParser(tokenizer).parse([10**6, 40]) == ["user", "user"]
    assert SegmentParser(tokenizer).follow([40])[1].take(10**6) == "reply"


def test_a_role_that_was_never_rendered_is_part_of_the_system() -> None:
    """Neither the user nor the model said it."""
    talk = [user("Hello."), {"role": "critic", "content": "Be brief."}, user("Well?")]
    assert spoken(chatml(), talk) == [
        ("user", "Hello."),
        ("system", "Be brief."),
        ("user", "Well?"),
    ]
    assert spoken(chatml(), [{"role": "developer", "content": "Be brief."}, user("Well?")]) == [
        ("system", "Be brief."),
        ("user", "Well?"),
    ]


def test_messages_that_no_template_would_put_in_this_order_are_told_apart() -> None:
    """People build prompts by hand, and leave ends out."""
    tokenizer = make_tokenizer(BY_NAME["gemma"], "bpe")
    text = (
        "<bos><bos><start_of_turn>user\nOne.<start_of_turn>user\nTwo.<end_of_turn>\n"
        "<start_of_turn>model\nThree.<end_of_turn>\n\n<start_of_turn>model\nFour."
    )
    found = [run for run in read(tokenizer, text) if run[0] != "special"]
    assert found == [("user", "One."), ("user", "Two."), ("reply", "Three."), ("reply", "Four.")]


def test_what_a_tool_answered_is_a_segment_of_its_own() -> None:
    """Neither the user nor the model wrote it."""
    assert spoken(chatml(), [*TALK[1:3], tool("12 degrees")])[-1] == ("tool", "12 degrees")


def test_special_tokens_inside_a_message_are_special() -> None:
    """They are nobody's words either."""
    runs = read(chatml(), "a<|im_end|>b")
    assert runs == [("user", "a"), ("special", "<|im_end|>"), ("user", "b")]


def test_a_reply_that_the_prompt_began_is_continued() -> None:
    """`continue_final_message` leaves the assistant's message open."""
    talk = [*TALK, said("It is")]
    for kind in KINDS:
        text = render(chatml(kind), talk, continue_final_message=True)
        assert read(chatml(kind), text)[-1] == ("reply", "It is")
        assert opening(chatml(kind), text) == "reply"


def test_white_space_that_was_added_to_a_vocabulary_is_text() -> None:
    """Gemma has tokens for runs of line breaks, and one may begin in the delimiter."""
    tokenizer = chatml(template=CHATML + "{# a tokenizer of its own #}")
    tokenizer.add_tokens(["\n\n"])
    assert spoken(tokenizer, [user("\nOne.\n\nTwo.")]) == [("user", "\n\nOne.\n\nTwo.")]


def test_white_space_that_a_template_trims_is_not_asked_for() -> None:
    """An empty message may take the space of its delimiter along."""
    trims = (
        "{%- for m in messages -%}{{- (m.role + ': ' + m.content) | trim + '\\n' -}}"
        "{%- endfor -%}{%- if add_generation_prompt -%}{{- 'assistant:' -}}{%- endif -%}"
    )
    talk = [user("One."), said(""), user("Two."), said("Three."), user("")]
    found = [(name, text.strip()) for name, text in spoken(chatml(template=trims), talk)]
    assert [run for run in found if run[1]] == [
        ("user", "One."),
        ("user", "Two."),
        ("reply", "Three."),
    ]


def test_a_role_without_a_name_is_not_learned() -> None:
    """Here a developer's message would begin with a colon, as many a sentence goes on."""
    names = (
        "{%- for m in messages -%}"
        "{{- {'user': 'A', 'assistant': 'B', 'system': 'C'}.get(m.role, '') -}}"
        "{{- ': ' + m.content + '\\n' -}}{%- endfor -%}"
    )
    found = spoken(chatml(template=names), [user("One\n: two"), said("Three.")])
    assert [(name, text.strip()) for name, text in found] == [
        ("user", "One\n: two"),
        ("reply", "Three."),
    ]


def test_all_of_a_call_is_one_segment() -> None:
    """Its brackets and quotes too."""
    tokenizer = make_tokenizer(BY_NAME["qwen2.5"], "bytes")
    text = render(tokenizer, [user("Where?"), said("", "", call(1, "Oslo"))])
    assert read(tokenizer, text)[-2:] == [
        ("tool", '{"name": "look_up", "arguments": {"place": "Oslo"}}'),
        ("special", "\n</tool_call><|im_end|>\n"),
    ]


def test_blank_lines_are_read_in_no_time() -> None:
    """A search that tries each of them anew would take minutes."""
    tokenizer = make_tokenizer(BY_NAME["chatml"], "bytes")
    ids = encode(tokenizer, render(tokenizer, [user(" " * 10), said("\n" * 50_000), user("x")]))[0]
    start = perf_counter()
    SegmentParser(tokenizer).parse(ids)
    assert perf_counter() - start < 10
