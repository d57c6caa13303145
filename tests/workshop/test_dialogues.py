"""How dialogues are written for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emowatch.errors import UsageError
from emowatch.model.loading import LoadedModel
from emowatch.workshop.dialogues import encode
from tests.studies.taught import THINKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

USER = {"role": "user", "content": "zoo"}
SYSTEM = {"role": "system", "content": "Be calm."}


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Give the tiny model, whose context is 512."""
    return LoadedModel(tiny_model, tiny_tokenizer, "tiny")


def test_a_template_that_refuses_a_system_prompt_is_told_in_words(loaded: LoadedModel) -> None:
    """As that of Gemma does."""
    loaded.tokenizer.chat_template = (
        "{%- if messages[0]['role'] == 'system' -%}"
        "{{- raise_exception('System role not supported') -}}{%- endif -%}"
        "{{- messages[0]['content'] -}}"
    )
    assert encode(loaded, [USER], thinks=False)
    with pytest.raises(UsageError, match=r"system and user for 'tiny'.*System role not supported"):
        encode(loaded, [SYSTEM, USER], thinks=False)


def test_without_a_template_there_is_the_message_alone(loaded: LoadedModel) -> None:
    """A base model can be asked in plain text, and be told nothing beside."""
    loaded.tokenizer.chat_template = None
    assert encode(loaded, [USER], thinks=False) == loaded.tokenizer("zoo")["input_ids"]
    with pytest.raises(UsageError, match="no chat template"):
        encode(loaded, [SYSTEM, USER], thinks=False)


def test_the_template_is_told_whether_to_think(loaded: LoadedModel) -> None:
    """Qwen3 thinks unless its template closes the thought beforehand."""
    loaded.tokenizer.chat_template = THINKING
    thinking, brief = (encode(loaded, [USER], thinks=thinks) for thinks in (True, False))
    assert "</think>" in loaded.tokenizer.decode(brief)
    assert "</think>" not in loaded.tokenizer.decode(thinking)
