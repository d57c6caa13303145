"""The tiny Llama that is streamed from, its bank, and how a stream of it begins."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.labels import EKMAN7
from emowatch.streaming import AsyncStream, Stream
from tests.model.zoo import make_model
from tests.streaming.talking import NEW


@pytest.fixture
def model() -> Any:
    """Build the tiny Llama."""
    return make_model("llama")


@pytest.fixture
def bank(model: Any) -> ProbeBank:
    """Make a bank for it."""
    return ProbeBank.random_for(model, labels=EKMAN7, head="offset-mlp", name="mood")


@pytest.fixture
def begin(model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank) -> Any:
    """Give a function that starts a stream."""

    def start(messages: Any = "hello", **options: Any) -> Stream:
        known: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
        return emowatch.stream(model, tiny_tokenizer, messages, probes=bank, **known | options)

    return start


@pytest.fixture
def abegin(model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank) -> Any:
    """Give a function that makes a stream to be awaited."""

    def make(messages: Any = "hello", **options: Any) -> AsyncStream:
        known: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
        return emowatch.astream(model, tiny_tokenizer, messages, probes=bank, **known | options)

    return make
