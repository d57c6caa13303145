"""A model on this machine is asked, and its answers are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emowatch.model.loading import LoadedModel
from emowatch.studies.asking import ask
from emowatch.workshop.building.prompting import PromptTemplate
from tests.studies.taught import LABELS, teach, texts_of

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


def test_a_model_that_was_taught_to_answer_is_read(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """From the text to the label through a real model, and from its file the second time."""
    loaded = teach(tiny_model, tiny_tokenizer)
    texts, labels = texts_of(4)
    question = PromptTemplate.parse("emotion", "{{ text }}")
    done: list[int] = []
    for _ in range(2):
        verdicts = ask(
            loaded,
            texts,
            LABELS,
            question,
            tmp_path,
            most=32,
            progress=lambda count, total: done.append(count),
        )
        assert [verdict.label for verdict in verdicts] == labels
    assert done == [len(texts)]


def test_what_a_model_cannot_read_or_end_has_no_verdict(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A text longer than the context, and answers that the limit cuts."""
    loaded = teach(tiny_model, tiny_tokenizer)
    question = PromptTemplate.parse("emotion", "{{ text }}")
    texts = [texts_of(1)[0][0], "z" * 600]
    verdicts = ask(loaded, texts, LABELS, question, tmp_path, most=5)
    assert [verdict.why for verdict in verdicts] == ["cut", "longer than the context"]


def test_a_model_that_knows_no_json_covers_nothing(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Random weights say bytes; that is a figure, not an error."""
    loaded = LoadedModel(tiny_model, tiny_tokenizer, "tiny")
    verdicts = ask(
        loaded, texts_of(3)[0], LABELS, PromptTemplate.built_in("emotion"), tmp_path, most=16
    )
    assert all(verdict.label is None and verdict.why for verdict in verdicts)
