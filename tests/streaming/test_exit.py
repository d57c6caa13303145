"""The interpreter ends while the model speaks: at once, in silence, and not inside torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.model.zoo import make_model

ROOT = Path(__file__).parent.parent.parent
BEGIN = """
import asyncio, logging, os, signal, sys
for talker in ("torchao", "torch.utils._pytree"):
    logging.getLogger(talker).setLevel(logging.ERROR)
import transformers
import emowatch
from emowatch.bank import ProbeBank

transformers.utils.logging.disable_progress_bar()
model = transformers.LlamaForCausalLM.from_pretrained(sys.argv[1])
tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
bank = ProbeBank.random_for(model, labels=("a", "b"), name="mood")
options = {"probes": bank, "max_new_tokens": 900_000, "suppress_tokens": [2]}
"""
PLAIN = """
stream = emowatch.stream(model, tokenizer, "hello", **options)
for _ in range(3):
    next(stream)
"""
AWAITED = """
stream = emowatch.astream(model, tokenizer, "hello", **options)
async def main():
    async with asyncio.timeout(60):
        for _ in range(3):
            await anext(stream)
"""
OPEN_LOOP = """
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder for a model that could speak for an hour."""
    return tmp_path_factory.mktemp("model")


def end_of(code: str, folder: Path) -> tuple[int, str]:
    """Run `code` in an interpreter of its own; give its exit status and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,  # most of it for torch to load on a busy machine
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (PLAIN + "sys.exit(3)", 3),
        (AWAITED + "asyncio.run(main())", 0),
        pytest.param(PLAIN, 0, marks=pytest.mark.soak),
        pytest.param(AWAITED + OPEN_LOOP, 0, marks=pytest.mark.soak),
    ],
    ids=["plain", "awaited", "plain without exit", "awaited in a loop that stays open"],
)
def test_the_interpreter_ends_while_the_model_speaks(
    folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, code: str, status: int
) -> None:
    """A daemon thread that is inside torch then aborts the process; another kind would hang it."""
    if not (folder / "config.json").exists():
        make_model("llama", max_position_embeddings=1_000_000).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
    assert end_of(code, folder) == (status, "")
