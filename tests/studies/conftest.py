"""What the tests of the studies share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.workshop.synthetic import read_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from emowatch.studies.setting import Setting


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread: for tensors this small, several wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def setting(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Setting:
    """Give the tiny model 60 made-up texts to learn from and 36 to be measured on."""
    from emowatch.model.loading import LoadedModel
    from emowatch.studies.setting import Setting

    return Setting(
        loaded=LoadedModel(tiny_model, tiny_tokenizer, "tiny"),
        train=read_texts(tmp_path / "train.tsv", per_class=20, seed=0),
        test=read_texts(tmp_path / "test.tsv", per_class=12, seed=1),
        work=tmp_path / "work",
    )
