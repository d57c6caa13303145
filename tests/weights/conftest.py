"""A tiny Llama in a folder, as people load theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.zoo import make_model


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the tiny Llama that most tests of watching speak with."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    make_model("llama").save_pretrained(folder)
    return folder
