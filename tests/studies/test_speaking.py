"""What a model says to dialogues: kept, cut to the context, without its thoughts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from emowatch.model.loading import LoadedModel
from emowatch.studies.speaking import answer, reply_limit
from tests.studies.taught import LABELS, THINKING, teach, texts_of

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

USER = {"role": "user", "content": "zoo"}
SYSTEM = {"role": "system", "content": "Be calm."}


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Give the tiny model, whose context is 512."""
    return LoadedModel(tiny_model, tiny_tokenizer, "tiny")


def test_replies_take_at_most_half_of_the_context(loaded: LoadedModel) -> None:
    """Else no message would fit before a reply as long as the context."""
    assert reply_limit(loaded, 64) == 64
    assert reply_limit(loaded, 512) == 256


def test_a_dialogue_without_room_has_no_answer(loaded: LoadedModel, tmp_path: Path) -> None:
    """The others are answered as if it were not there."""
    long = {"role": "user", "content": "z" * 500}
    said = answer(loaded, [[USER], [long], [USER]], tmp_path, most=12, seed=0, sample=False)
    assert said[1] is None
    assert said[0] is not None and said[0] == said[2]


def test_no_dialogue_with_room_needs_no_model(loaded: LoadedModel, tmp_path: Path) -> None:
    """And leaves no file."""
    long = {"role": "user", "content": "z" * 500}
    assert answer(loaded, [[long]], tmp_path, most=12, seed=0, sample=False) == [None]
    assert not any(tmp_path.iterdir())


def test_other_settings_have_other_files(loaded: LoadedModel, tmp_path: Path) -> None:
    """One folder serves all prompts of a study, and a second study."""
    for most, seed, sample in ((8, 0, True), (8, 1, True), (8, 0, False), (9, 0, True)):
        for dialogue in ([USER], [SYSTEM, USER]):
            answer(loaded, [dialogue], tmp_path, most=most, seed=seed, sample=sample)
    assert len(list(tmp_path.glob("*.jsonl"))) == 8


def test_thoughts_are_no_part_of_what_is_said(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A judge reads the reply; whoever is cut while thinking has said nothing."""
    tokenizer: Any = tiny_tokenizer
    tokenizer.chat_template = THINKING
    thoughts = [f"so, {label}</think>It is {label}." for label in LABELS]
    loaded = teach(tiny_model, tokenizer, thoughts, thinks=True)
    texts, labels = texts_of(1)
    dialogues = [[{"role": "user", "content": text}] for text in texts]
    options: dict[str, Any] = {"seed": 0, "sample": False, "thinks": True}
    said = answer(loaded, dialogues, tmp_path, most=60, **options)
    assert [one and one.text for one in said] == [f"It is {LABELS[label]}." for label in labels]
    assert not any(one and one.is_cut for one in said)
    cut = answer(loaded, dialogues, tmp_path, most=6, **options)
    assert all(one and one.text == "" and one.is_thinking for one in cut)
