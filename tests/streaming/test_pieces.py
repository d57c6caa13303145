"""Pieces of text: each token brings what it completes, and together they are the reply."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from emowatch.wording import ReplyText
from tests.conftest import END_ID
from tests.streaming.talking import Say


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        "né à Köln",
        "日本語",
        "🙂🙃👩‍👩‍👧",
        " leading",
        "two\n\nlines ",
        "a�b",
        "ﷺ",
    ],
)
def test_pieces_join_to_the_reply(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    """Here every token is a byte, so that most characters span several."""
    said = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert isinstance(said, list)
    stream = begin(logits_processor=[Say(said)], max_new_tokens=80)
    tokens = list(stream)
    assert "".join(token.text for token in tokens) == text
    assert stream.turn is not None
    assert stream.turn.text == text
    assert stream.turn.finish_reason == "stop"
    assert [token.token_id for token in tokens] == [*said, END_ID]


def test_a_character_that_is_never_completed_is_in_the_text_of_the_turn(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """When its token comes nobody knows yet that it is the last; a turn does."""
    said = tiny_tokenizer("ab🙂", add_special_tokens=False)["input_ids"]
    assert isinstance(said, list)
    stream = begin(logits_processor=[Say(said[:-1])])
    assert "".join(token.text for token in stream) == "ab"
    assert stream.turn.text == "ab�"


def test_a_character_comes_with_the_token_that_completes_it(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Half a character would be shown as a replacement sign, and then be replaced."""
    said = tiny_tokenizer("aé🙂b", add_special_tokens=False)["input_ids"]
    tokens = list(begin(logits_processor=[Say(said)]))
    assert [token.text for token in tokens] == ["a", "", "é", "", "", "", "🙂", "b", ""]


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_broken_bytes_join_to_what_the_tokenizer_makes_of_them(
    tiny_tokenizer: PreTrainedTokenizerFast, seed: int
) -> None:
    """A random or damaged model speaks such; text must not be lost for it."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = torch.tensor([*range(6, 262), *range(200, 262)])
    places = torch.randint(0, len(vocabulary), (400,), generator=generator)
    ids = vocabulary[places].tolist()
    reply = ReplyText(tiny_tokenizer)
    pieces = []
    for number, token in enumerate(ids, 1):
        reply.add(token)
        pieces.append(reply.piece(number - 1))
        if number % 40 == 0:
            assert reply.text == tiny_tokenizer.decode(ids[:number])
    assert str(tiny_tokenizer.decode(ids)).startswith("".join(pieces))
    assert [reply.piece(place) for place in range(len(ids))] == pieces


def test_bytes_that_make_no_character_are_not_held_for_ever(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """A model that is stuck on one byte must show that it is."""
    reply = ReplyText(tiny_tokenizer)
    stuck = next(i for i in range(6, 262) if tiny_tokenizer.decode([i]) == "�")
    for _ in range(500):
        reply.add(stuck)
    assert len("".join(map(reply.piece, range(500)))) > 400
    assert len(reply.text) == 500


def test_text_of_a_long_reply_costs_no_more_at_its_end(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Only what is not settled yet is decoded again."""

    class Counting:
        longest = 0

        def decode(self, ids: list[int], **options: Any) -> str:
            self.longest = max(self.longest, len(ids))
            return str(tiny_tokenizer.decode(ids, **options))

    counting = Counting()
    reply = ReplyText(counting)
    ids = tiny_tokenizer("so on 🙂 " * 200)["input_ids"]
    for token in ids:
        reply.add(token)
    assert reply.text == "so on 🙂 " * 200
    assert counting.longest <= 8


def test_without_a_tokenizer_there_are_ids_and_no_text() -> None:
    """A trace may be told to keep none."""
    reply = ReplyText(None)
    reply.add(7)
    assert (reply.text, reply.ids, reply.piece(0)) == ("", [7], "")
