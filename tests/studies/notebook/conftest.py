"""What the tests of the notebook study share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.studies.notebook.accounts_made import write_envent

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from emowatch.model.loading import LoadedModel
    from emowatch.studies.notebook.accounts import Accounts


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    """Give 60 made-up accounts of three emotions."""
    from emowatch.studies.notebook.accounts import read_accounts

    return read_accounts(write_envent(tmp_path / "envent.csv"))


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Give the tiny model as a study has it."""
    from emowatch.model.loading import LoadedModel

    return LoadedModel(tiny_model, tiny_tokenizer, "tiny")
