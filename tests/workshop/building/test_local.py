"""A model on this machine answers as an endpoint does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emowatch.errors import ModelError
from emowatch.model.loading import LoadedModel
from emowatch.workshop.building import Answer, RefusedPromptError
from emowatch.workshop.building.asking import Item, Purse
from emowatch.workshop.building.jobs import open_job
from emowatch.workshop.building.local import LocalModel
from emowatch.workshop.building.prompting import PromptTemplate
from tests.workshop.building.rows import Down

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PROMPTS = [(str(n), ({"role": "user", "content": "hey " * n + "you"},)) for n in (9, 1, 4, 30, 2)]


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Give the tiny model as the command line opens one."""
    return LoadedModel(tiny_model, tiny_tokenizer, "tiny")


def test_batches_answer_as_one_by_one(loaded: LoadedModel) -> None:
    """Padding changes no answer, and each prompt gets its own."""
    model = LocalModel(loaded, max_tokens=12, batch_rows=3)
    together = dict(model.complete_many(PROMPTS))
    alone = {key: model.complete(messages) for key, messages in PROMPTS}
    assert together == alone
    assert len({answer.text for answer in alone.values()}) > 1


def test_tokens_are_counted_exactly(loaded: LoadedModel) -> None:
    """Of the prompt with its template, and of the answer without its end."""
    answer = LocalModel(loaded, max_tokens=5).complete(PROMPTS[1][1])
    text = loaded.tokenizer.apply_chat_template(
        PROMPTS[1][1], add_generation_prompt=True, tokenize=False
    )
    assert answer.prompt_tokens == len(
        loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    )
    assert 0 <= answer.completion_tokens <= 5
    assert answer.is_cut == (answer.completion_tokens == 5)


def test_a_prompt_longer_than_the_context_is_refused_alone(loaded: LoadedModel) -> None:
    """It would be answered without its beginning, or not at all."""
    long = ({"role": "user", "content": "x" * 600},)
    model = LocalModel(loaded, max_tokens=8, batch_rows=2)
    found = dict(model.complete_many([("long", long), *PROMPTS]))
    assert isinstance(found.pop("long"), RefusedPromptError)
    assert len(found) == 5 and all(isinstance(one, Answer) for one in found.values())
    with pytest.raises(RefusedPromptError, match="longer than the model's context of 512"):
        model.complete(long)


def test_a_model_that_was_not_taught_to_answer_is_refused(loaded: LoadedModel) -> None:
    """There is no way to put a question to it."""
    loaded.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        LocalModel(loaded, max_tokens=8)


def test_its_answers_are_kept_and_are_its_own(loaded: LoadedModel, tmp_path: Path) -> None:
    """The ledger knows a model by its weights, not by the name of its folder."""
    template = PromptTemplate.parse("label", "{{ text }}?")
    items = [Item("", {"text": f"t{n}", "labels": ["joy"]}) for n in range(4)]
    model = LocalModel(loaded, max_tokens=8)
    with open_job(tmp_path, "a.csv", Purse()) as job:
        stage = job.stage("label", template, lambda answer: answer.text, model)
        first = stage.ask(items)
    down = Down(LocalModel(loaded, max_tokens=8).identity)
    with open_job(tmp_path, "a.csv", Purse()) as job:
        assert job.stage("label", template, lambda answer: answer.text, down).ask(items) == first
    before = dict(model.identity)
    next(iter(loaded.model.parameters())).data[:3] += 1
    assert LocalModel(loaded, max_tokens=8).identity != before
