"""What many tests need: a tiny model with its tokenizer and bank, records, a clean environment.

The model is three random layers and the tokenizer is bytes: nothing is fetched, and a test that
needs neither does not load torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Read when numpy and torch are imported, here and in the interpreters that tests start: for tensors
# this small, threads wait for each other, and each core has a process of tests already.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from emowatch.labels import EKMAN7
from emowatch.records import Alarm, BankInfo, Scores, Segment, Session, TokenScore, Turn

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from emowatch.bank import ProbeBank

SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
PAD_ID, BOS_ID, END_ID = 0, 1, 2
VOCABULARY = len(SPECIAL_TOKENS) + 256
CHAT_TEMPLATE = (
    "{{- '<|bos|>' -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
ALARM = Alarm(
    rule="because",
    label="joy",
    level="watch",
    score=0.75,
    threshold=0.5,
    bank="mood",
    turn=0,
    sequence=0,
    offset=0,
)


@pytest.fixture(autouse=True)
def _own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Hide the settings of whoever runs the tests, and keep files out of their home."""
    for name in list(os.environ):
        if name.startswith(("EMOWATCH_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EMOWATCH_HOME", str(tmp_path_factory.mktemp("home")))


# A model


@pytest.fixture
def tiny_model() -> LlamaForCausalLM:
    """Build a random Llama of 3 layers and width 32, the same each time, in evaluation mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        # The usual 0.02 makes a model of this size say one token for ever.
        initializer_range=0.3,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=END_ID,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.train(False)
    return model


@pytest.fixture
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of single bytes and six special tokens, padding on the left."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    kind: Any = PreTrainedTokenizerFast  # transformers 5 types half of it
    tokenizer: PreTrainedTokenizerFast = kind(
        tokenizer_object=core,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def tiny_bank(tiny_model: LlamaForCausalLM) -> ProbeBank:
    """Make a random bank of the seven emotions for all layers of `tiny_model`."""
    from emowatch.bank import ProbeBank

    return ProbeBank.random_for(tiny_model, labels=EKMAN7, head="offset-mlp")


# Records


def make_bank_info(name: str = "mood", labels: Sequence[str] = ("anger", "joy")) -> BankInfo:
    """Describe a bank of a model with three blocks."""
    return BankInfo(
        name=name, labels=tuple(labels), layers=(0, 1, 2, 3), primary=2, target="user", sha256="ab"
    )


def make_session(*banks: BankInfo, **changes: Any) -> Session:
    """Describe a session with one bank, or with those given."""
    known: dict[str, Any] = {
        "id": "s1",
        "model": "tiny",
        "banks": banks or (make_bank_info(),),
        "n_layers": 3,
        "d_model": 32,
        "seed": 7,
    }
    return Session(**known | changes)


def make_score(
    values: Sequence[float] = (0.25, 0.75),
    *,
    bank: BankInfo | None = None,
    turn: int = 0,
    sequence: int = 0,
    position: int = 9,
    offset: int | None = 0,
    segment: Segment = "reply",
) -> TokenScore:
    """Score one token; `values` are those of the bank's labels."""
    of = bank or make_bank_info()
    return TokenScore(
        bank=of.name,
        turn=turn,
        sequence=sequence,
        position=position,
        offset=offset,
        segment=segment,
        scores=Scores(of.labels, np.array(values, dtype=np.float32)),
    )


def make_turn(index: int = 0, sequence: int = 0, text: str = "", **changes: Any) -> Turn:
    """Describe a finished reply of two tokens."""
    known: dict[str, Any] = {
        "prompt_tokens": 10,
        "reply_tokens": 2,
        "finish_reason": "stop",
        "token_ids": (40, 41),
        "settings": {"do_sample": False, "max_new_tokens": 8},
        "mean_scores": {"mood": Scores(("anger", "joy"), np.array([0.25, 0.75], dtype=np.float32))},
    }
    return Turn(index=index, sequence=sequence, text=text, **known | changes)


# Installed plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Give a folder on the path where a test can install distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    made = Site(folder)
    yield made
    made.forget_modules()


class Site:
    """A folder of installed distributions, as pip would leave them."""

    def __init__(self, folder: Path) -> None:
        """Start with nothing installed."""
        self.folder = folder
        self._modules: list[str] = []

    def install(self, name: str, code: str, *, attribute: str = "", version: str = "1.0") -> None:
        """Install a distribution ``emowatch-NAME`` with one module and one entry point."""
        module = f"emowatch_{name.replace('-', '_')}"
        self._modules.append(module)
        (self.folder / f"{module}.py").write_text(code, encoding="utf-8")
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: emowatch-{name}\nVersion: {version}\n", encoding="utf-8"
        )
        target = f"{module}:{attribute}" if attribute else module
        (info / "entry_points.txt").write_text(f"[emowatch]\n{name} = {target}\n", encoding="utf-8")

    def forget_modules(self) -> None:
        """Take the installed modules out of the interpreter."""

        for module in self._modules:
            sys.modules.pop(module, None)
