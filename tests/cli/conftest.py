"""A command line in this process, a tiny model in a folder, data, and a bank trained on it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emowatch.cli import main
from tests.cli.commands import FLAGS, Cli, Done
from tests.workshop.conftest import one_thread
from tests.workshop.synthetic import write_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["one_thread"]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Give a function that runs a command line in this process."""
    for name in ("TRANSFORMERS_VERBOSITY", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "error" if name.startswith("TRANS") else "false")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", "")

    def run(*arguments: object, stdin: bytes = b"") -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["emowatch", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Done(stop.value.code, said.out, said.err)

    return run


@pytest.fixture
def model(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Give the folder of the tiny model, saved once for all tests."""
    folder = tmp_path_factory.getbasetemp() / "tiny"
    if not folder.exists():
        tiny_model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with train.tsv and test.tsv."""
    folder = tmp_path_factory.getbasetemp() / "data"
    if not folder.exists():
        folder.mkdir()
        write_texts(folder / "train.tsv", 24)
        write_texts(folder / "test.tsv", 10, seed=1)
    return folder


@pytest.fixture
def bank(cli: Cli, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a bank trained by the command, once for all tests."""
    folder = tmp_path_factory.getbasetemp() / "mood"
    if not folder.exists():
        done = cli("train", data / "train.tsv", "--model", model, "--out", folder, *FLAGS)
        assert done.code == 0, done.err
    return folder
