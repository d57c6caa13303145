"""Read-outs: which tokens the model sees, and which of its states count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emowatch.errors import CorpusError, UsageError
from emowatch.workshop.readouts import (
    Passage,
    prompt_ids,
    prompt_passages,
    reply_passage,
    text_start,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = ["lost my dog", "a", "a longer message than the others"]


@pytest.mark.parametrize("system", [None, "You always remain calm and composed."])
def test_a_prompt_is_what_the_chat_template_renders(
    system: str | None, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Heads are fitted to the tokens that the model sees when it is watched."""
    start = [{"role": "system", "content": system}] if system else []
    rendered = tiny_tokenizer.apply_chat_template(
        [*start, {"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False
    )
    ids = prompt_ids(tiny_tokenizer, "hi", template=True, system=system)
    assert tiny_tokenizer.decode(ids, skip_special_tokens=False) == rendered


def test_a_plain_prompt_is_the_text_alone(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Base models have no template, and some studies want none."""
    ids = prompt_ids(tiny_tokenizer, "hi", template=False)
    assert tiny_tokenizer.decode(ids) == "hi"


def test_a_template_that_is_not_there_is_refused_in_words(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Raw text in its place would be another read-out."""
    tiny_tokenizer.chat_template = None
    with pytest.raises(UsageError, match=r"tokenizer has none.*--no-template"):
        prompt_ids(tiny_tokenizer, "hi", template=True)


def test_the_last_prompt_token_is_the_one_before_the_reply(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """It is the state that the first reply token is sampled from."""
    for passage in prompt_passages(tiny_tokenizer, TEXTS, "last_prompt_token", template=True):
        assert isinstance(passage, Passage)
        assert passage.places == (len(passage.ids) - 1,)
        assert passage.offsets == (0,)
        assert tiny_tokenizer.decode([passage.ids[-1]]) == "<|assistant|>"


def test_positions_count_from_the_end(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Each text yields as many states, so that positions can be compared."""
    made = prompt_passages(
        tiny_tokenizer, ["abcdef", "abc"], "positions", template=False, positions=(-3, -2, -1)
    )
    assert [p.places for p in made if isinstance(p, Passage)] == [(3, 4, 5), (0, 1, 2)]


@pytest.mark.parametrize("template", [False, True])
def test_a_text_too_short_for_a_position_makes_no_passage(
    template: bool, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Before its first token stand tokens that every prompt has: their states say nothing of it."""
    texts = ["abc", "ab", "a"]
    ending = 2 if template else 0  # <|end|><|assistant|>
    for deepest, long_enough in ((-1, 3), (-2, 2), (-3, 1), (-4, 0)):
        positions = tuple(range(deepest - ending, 0))
        made = prompt_passages(
            tiny_tokenizer, texts, "positions", template=template, positions=positions
        )
        assert [isinstance(one, Passage) for one in made] == [n < long_enough for n in range(3)]
        for text, one in zip(texts, made, strict=True):
            if isinstance(one, Passage):
                assert len(set(one.places)) == len(positions)
                assert tiny_tokenizer.decode(one.ids[one.places[0]]) == text[deepest]
            else:
                assert one == "too short for the positions"


def test_a_text_starts_where_prompts_begin_to_differ(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """After <|bos|><|user|> of the template; a tokenizer may begin every text with a token too."""
    assert text_start(tiny_tokenizer, template=True) == 2
    assert text_start(tiny_tokenizer, template=False) == 0

    def tokenizer(text: str) -> dict[str, list[int]]:
        return {"input_ids": [1, *([9] if text else [])]}

    assert text_start(tokenizer, template=False) == 0  # every character is unknown to it
    made = prompt_passages(tokenizer, ["a"], "last_prompt_token", template=False)
    assert made == [Passage((1, 9), (1,), (0,))]


def test_the_mean_is_over_every_token(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """It counts as one state."""
    (passage,) = prompt_passages(tiny_tokenizer, ["abc"], "mean", template=False)
    assert isinstance(passage, Passage)
    assert (passage.places, passage.pooled, passage.rows) == ((0, 1, 2), True, 1)


def test_a_text_longer_than_the_context_makes_no_passage(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Cutting it would keep its label and lose what the label is about."""
    made = prompt_passages(
        tiny_tokenizer, ["abcd", "abcde"], "last_prompt_token", template=False, context=4
    )
    assert isinstance(made[0], Passage)
    assert made[1] == "longer than the context"


def test_offset_k_is_the_place_before_reply_token_k() -> None:
    """The state must exist before the token it is scored with."""
    prompt, reply = [10, 11, 12], [20, 21, 22, 23, 24]
    passage = reply_passage(prompt, reply, at_most=99, seed=0)
    assert passage.offsets == (0, 1, 2, 3, 4)
    whole = prompt + reply
    for place, offset in zip(passage.places, passage.offsets, strict=True):
        assert whole[place + 1] == reply[offset]
    assert list(passage.ids) == whole[:-1]


def test_a_few_offsets_are_drawn_with_the_first_always_among_them() -> None:
    """Offset 0 is what the other read-outs see; the rest is drawn anew for each reply."""
    draws = [reply_passage([1], list(range(50)), at_most=4, seed=seed) for seed in range(20)]
    for drawn in draws:
        assert drawn.offsets[0] == 0
        assert list(drawn.offsets) == sorted(set(drawn.offsets))
        assert len(drawn.offsets) == 4
        assert len(drawn.ids) == drawn.places[-1] + 1
    assert len({drawn.offsets for drawn in draws}) > 10
    assert reply_passage([1], list(range(50)), at_most=4, seed=3) == draws[3]


def test_a_reply_without_tokens_is_refused() -> None:
    """There is nothing that it could be about."""
    with pytest.raises(CorpusError, match="without tokens"):
        reply_passage([1, 2], [], at_most=3, seed=0)
