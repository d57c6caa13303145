"""Replies: written once, kept, and the same however often a run was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from emowatch.errors import TrainingError
from emowatch.workshop import replies as module
from emowatch.workshop.replies import generate_replies

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PROMPTS = [[1, 40 + i, 41, 42 + i][: 2 + i % 3] for i in range(11)]
END = 2


class Killed(BaseException):
    """Stands for a signal that no code catches."""


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches of few prompts."""
    monkeypatch.setattr(module, "BATCH_ROWS", 4)


@pytest.fixture
def calls(tiny_model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls of `generate`; the real one runs."""
    made: list[int] = []
    speaker: Any = tiny_model
    generate = speaker.generate

    def counted(**options: Any) -> Any:
        made.append(len(options["input_ids"]))
        return generate(**options)

    monkeypatch.setattr(tiny_model, "generate", counted)
    return made


def answered(
    model: Any, tokenizer: Any, path: Path, prompts: Any = PROMPTS, **options: Any
) -> list[list[int]]:
    """Answer the prompts with at most 8 tokens."""
    known: dict[str, Any] = {"max_new_tokens": 8, "seed": 3}
    return generate_replies(model, tokenizer, prompts, path, **known | options)


def test_a_second_call_generates_nothing(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    calls: list[int],
) -> None:
    """Generating is the slow part of training on replies."""
    first = answered(tiny_model, tiny_tokenizer, tmp_path / "r.jsonl")
    assert calls == [4, 4, 3]
    assert answered(tiny_model, tiny_tokenizer, tmp_path / "r.jsonl") == first
    assert calls == [4, 4, 3]


@pytest.mark.parametrize("tokens", [1, 2, 64])
def test_greedy_replies_are_those_of_generate_alone(
    tokens: int,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches are padded, sorted by length and cut after some tokens; none may reach a reply."""
    monkeypatch.setattr(module, "ROUND", tokens)
    found = answered(tiny_model, tiny_tokenizer, tmp_path / "r.jsonl", sample=False)
    speaker: Any = tiny_model  # transformers types `generate` for another class
    for prompt, reply in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt])
        output = speaker.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
        )
        alone = output[0, len(prompt) :].tolist()
        assert reply == (alone[: alone.index(END)] if END in alone else alone)


def test_short_replies_do_not_wait_for_long_ones(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Replies that go on after some tokens do so in batches of their own, without the others."""
    monkeypatch.setattr(module, "ROUND", 2)
    speaker: Any = tiny_model
    speaker.generation_config.eos_token_id = list(range(END, 100))  # a third of all tokens
    found = answered(tiny_model, tiny_tokenizer, tmp_path / "r.jsonl")
    going = sum(len(reply) >= 2 for reply in found)
    assert 0 < going < len(PROMPTS)
    assert calls == [4, 4, 3, *[4] * (going // 4), *[going % 4] * (going % 4 > 0)]


@pytest.mark.parametrize("tokens", [1, 2, 64])
@pytest.mark.parametrize(
    ("lines", "torn"),
    [(0, b""), (0, b'{"ke'), (1, b""), (3, b'{"prompt": 3, "rep'), (5, b""), (12, b"{"), (14, b"")],
)
def test_a_killed_run_ends_with_the_same_replies(
    lines: int,
    torn: bytes,
    tokens: int,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sampling goes on as it would have gone, from any line and half a line."""
    monkeypatch.setattr(module, "ROUND", tokens)
    alone = answered(tiny_model, tiny_tokenizer, tmp_path / "alone.jsonl")
    assert len({tuple(reply) for reply in alone}) > 5
    written = (tmp_path / "alone.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "killed.jsonl").write_bytes(b"".join(written[:lines]) + torn)
    assert answered(tiny_model, tiny_tokenizer, tmp_path / "killed.jsonl") == alone
    for line in (tmp_path / "killed.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line)


def test_a_run_that_dies_between_batches_keeps_what_it_wrote(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    calls: list[int],
) -> None:
    """Each batch is on the disk before the next begins."""

    def die(done: int, total: int) -> None:
        assert total == len(PROMPTS)
        if done == 8:
            raise Killed

    with pytest.raises(Killed):
        answered(tiny_model, tiny_tokenizer, tmp_path / "r.jsonl", progress=die)
    calls.clear()
    found = answered(tiny_model, tiny_tokenizer, tmp_path / "r.jsonl")
    assert calls == [3]
    assert found == answered(tiny_model, tiny_tokenizer, tmp_path / "alone.jsonl")


@pytest.mark.parametrize("change", ["prompts", "length", "seed", "weights"])
def test_replies_to_other_prompts_are_refused(
    change: str,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    """They would be joined to messages that they do not answer."""
    path = tmp_path / "r.jsonl"
    answered(tiny_model, tiny_tokenizer, path)
    before = path.read_bytes()
    prompts = [*PROMPTS[:-1], [1, 99]] if change == "prompts" else PROMPTS
    options = {"length": {"max_new_tokens": 5}, "seed": {"seed": 4}}.get(change, {})
    if change == "weights":
        with torch.no_grad():
            tiny_model.model.norm.weight[0] += 1
    with pytest.raises(TrainingError, match="they answer other prompts"):
        answered(tiny_model, tiny_tokenizer, path, prompts, **options)
    assert path.read_bytes() == before


def test_any_of_the_models_end_tokens_ends_a_reply(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Chat models have several, and behind one of them a batch is filled with padding."""
    assert tiny_model.generation_config is not None
    free = answered(tiny_model, tiny_tokenizer, tmp_path / "free.jsonl", sample=False)
    later = [token for reply in free for token in reply[1:]]
    other = max(later, key=later.count)
    tiny_model.generation_config.eos_token_id = [END, other]
    found = answered(tiny_model, tiny_tokenizer, tmp_path / "r.jsonl", sample=False)
    assert found == [r[: r.index(other)] if other in r else r for r in free]
    assert found != free


def test_a_file_that_is_something_else_is_left_alone(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A name given twice must not cost the user a file."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\xff not ours\nat all")
    with pytest.raises(TrainingError, match="they answer other prompts"):
        answered(tiny_model, tiny_tokenizer, path)
    assert path.read_bytes() == b"\xff not ours\nat all"


def test_a_place_that_cannot_be_written_is_named(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The error says where, and why."""
    (tmp_path / "taken").touch()
    with pytest.raises(TrainingError, match=r"Could not write replies to .*taken"):
        answered(tiny_model, tiny_tokenizer, tmp_path / "taken" / "r.jsonl")
