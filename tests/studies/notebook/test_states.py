"""Which states are read: five tokens of the notebook's prompt, however batches are padded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from emowatch.errors import StudyError
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import LoadedModel
from emowatch.studies.notebook import states as module
from emowatch.studies.notebook.accounts import Accounts
from emowatch.studies.notebook.states import ask, groups_of_layers, read_layers
from emowatch.workshop.preparation import quiet


def read(accounts: Accounts, loaded: LoadedModel, work: Path) -> dict[int, torch.Tensor]:
    """Read all layers: ``[positions, texts, d_model]`` of each."""
    found = read_layers(
        ask(accounts, loaded),
        loaded,
        find_blocks(loaded.model),
        (0, 1, 2, 3),
        work,
        batch_tokens=2048,
        report=quiet,
    )
    parts: dict[int, torch.Tensor] = {}
    for layers, states in groups_of_layers(found):
        parts |= dict(zip(layers, states, strict=True))
    return parts


def test_states_are_those_of_a_model_that_pads_on_the_left(
    accounts: Accounts, loaded: LoadedModel, tmp_path: Path
) -> None:
    """The notebook pads there, and takes the last five columns; we pad on the right."""
    few = accounts.only(range(8))
    found = read(few, loaded, tmp_path / "work")
    question = "What are the inferred emotions in the following contexts? Context: {} Answer:"
    prompts = [question.format(text) for text in few.texts]
    inputs = loaded.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    with torch.no_grad():
        output = loaded.model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            output_hidden_states=True,
        )
    for layer, wanted in enumerate(output.hidden_states):
        last = wanted[:, -5:].transpose(0, 1)  # [positions, texts, d_model]
        torch.testing.assert_close(found[layer], last, rtol=1e-4, atol=1e-4)


def test_layers_are_read_some_at_a_time_where_memory_is_short(
    accounts: Accounts, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6,600 texts of a large model do not fit at once."""
    whole = read(accounts, loaded, tmp_path / "work")
    monkeypatch.setattr(module, "AT_ONCE", 1)
    apart = read(accounts, loaded, tmp_path / "work")
    assert all(torch.equal(whole[layer], apart[layer]) for layer in range(4))


def test_prompts_that_are_too_long_are_put_aside_and_counted(
    accounts: Accounts, loaded: LoadedModel
) -> None:
    """Cut, they would end in the middle of a text."""
    long = replace(accounts, texts=("x" * 300, *accounts.texts[1:]))
    found = ask(long, loaded)
    assert len(found.accounts) == len(found.passages) == 59
    assert found.left_out == {"prompts of more than 256 tokens": 1}
    assert found.accounts.texts[0] == accounts.texts[1]
    with pytest.raises(StudyError, match="about any of 60 accounts"):
        ask(replace(accounts, texts=("x" * 300,) * 60), loaded)
