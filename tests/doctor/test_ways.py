"""Ways of decoding under the doctor: the whole watch is run, and each fault in it is noticed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    CompileConfig,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
    RwkvConfig,
    RwkvForCausalLM,
    StaticCache,
)
from transformers.utils.import_utils import is_optimum_quanto_available

from emowatch.doctor import Certificate, Check, checks, examination, examine, render_table, ways
from emowatch.doctor.law import LAW
from emowatch.errors import UnsupportedError
from emowatch.model.entrance import Place
from emowatch.model.tap import Tap
from emowatch.watching import following, settling, telling
from emowatch.watching.held import Beams, Candidates
from emowatch.watching.prompts import Prompt
from emowatch.watching.reading import Reader
from emowatch.watching.turns import Row, RunningTurn
from tests.model.zoo import OLD, hook_count, make_model

SINGLE = {
    "cached decoding",
    "own loop",
    "several replies",
    "padded batch",
    "no cache",
    "next turn",
    "prompt in chunks",
    "static cache",
    "quantised cache",
}
"""Ways whose tokens are told one by one."""
HELD = {"candidates", "beam search"}
"""Ways whose scores wait until their tokens are chosen."""


@pytest.fixture(autouse=True)
def _quantised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run that check as well, without waiting for compiled code."""
    more = tuple(test for test in checks.ON_REQUEST if test.name == "quantised cache")
    monkeypatch.setattr(examination, "CHECKS", checks.CHECKS + more)


def finding(certificate: Certificate, name: str) -> Check:
    """Give one check by its name."""
    return next(check for check in certificate.checks if check.name == name)


def failures(certificate: Certificate) -> set[str]:
    """Name the checks that were run and failed."""
    return {check.name for check in certificate.failed}


def followed(*names: set[str]) -> set[str]:
    """Join sets of ways, less those that are refused before transformers 5 or lack a library."""
    left_out = {"prompt in chunks"} if OLD else set[str]()
    if not is_optimum_quanto_available():
        left_out.add("quantised cache")
    return set().union(*names) - left_out


# Faults in emowatch's own following


def test_a_position_that_is_one_off_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores would stand beside the next token."""
    right: Any = vars(Row)["position"]
    monkeypatch.setattr(Row, "position", property(lambda row: right.fget(row) + 1))
    certificate = examine(make_model("llama"), None)
    assert failures(certificate) == followed(SINGLE, HELD)
    told = finding(certificate, "cached decoding")
    assert told.limit == LAW
    assert str(told.measured).startswith("scores at positions 0 1 2 3 4 5 6 8 9 10 instead of 0")


def test_a_score_that_is_dropped_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token has one."""
    right = telling.Teller.tell_token

    def forgetful(teller: Any, *args: Any, **kwargs: Any) -> Any:
        return [] if kwargs["offset"] == 1 else right(teller, *args, **kwargs)

    monkeypatch.setattr(telling.Teller, "tell_token", forgetful)
    certificate = examine(make_model("llama"), None)
    # What is built on nothing is not run.
    assert failures(certificate) == {"generate unchanged"}
    assert finding(certificate, "generate unchanged").measured == "same tokens, 2 scores for 3"


def test_a_score_that_is_told_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a prompt is taken for new after its reply has begun."""
    right = telling.Teller.tell_token

    def stuttering(teller: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs["sequence"] == 1:
            right(teller, *args, **kwargs)
        return right(teller, *args, **kwargs)

    monkeypatch.setattr(telling.Teller, "tell_token", stuttering)
    certificate = examine(make_model("llama"), None)
    assert failures(certificate) == {"several replies", "padded batch", "beam search"}
    assert finding(certificate, "several replies").measured == "6 scores for 3 reply tokens"


def test_scores_that_come_one_token_late_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is in its place, and each score is that of the token before."""
    right, last = settling.Settler._tell_reply, dict[Any, Any]()

    def late(follower: Any, turn: Any, sequence: int, scores: Any, place: int) -> Any:
        key = (turn.index, sequence)
        earlier = last.get(key, (scores, place)) if turn.rows[sequence].offset else (scores, place)
        last[key] = scores, place
        return right(follower, turn, sequence, *earlier)

    monkeypatch.setattr(settling.Settler, "_tell_reply", late)
    certificate = examine(make_model("llama"), None)
    assert failures(certificate) == followed(SINGLE, HELD)
    assert float(finding(certificate, "cached decoding").measured) > 0.1


def test_scores_of_another_row_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where there are several rows."""
    right = settling.Settler._tell_reply

    def first(follower: Any, turn: Any, sequence: int, scores: Any, place: int) -> Any:
        return right(follower, turn, sequence, scores, 0)

    monkeypatch.setattr(settling.Settler, "_tell_reply", first)
    found = failures(examine(make_model("llama"), None))
    assert found >= {"several replies", "padded batch", "beam search"}
    assert not found & {"cached decoding", "no cache", "static cache"}


def test_heads_that_are_told_a_wrong_offset_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace would hold the right one."""
    right = Reader.score
    monkeypatch.setattr(Reader, "score", lambda me, states, offset: right(me, states, offset + 1))
    assert failures(examine(make_model("llama"), None)) == followed(SINGLE, HELD)


def _unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take other columns of a text that is read again."""
    right = following.Follower._read

    def read(me: Any, states: Any, first: int, last: int, columns: int, extra: Any) -> Any:
        if states[0].shape[1] > last - first:
            states = [state.roll(1, 1) for state in states]
        return right(me, states, first, last, columns, extra)

    monkeypatch.setattr(following.Follower, "_read", read)


def _unowned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take each forward of an own loop for a turn of its own."""
    right = RunningTurn.goes_on_with
    monkeypatch.setattr(
        RunningTurn,
        "goes_on_with",
        lambda me, *args: me.loop != "own" and right(me, *args),
    )


def _lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a block as it is while it is watched."""
    right = Place.remove

    def remove(me: Place) -> None:
        if sys.exception() is None:
            right(me)

    monkeypatch.setattr(Place, "remove", remove)


def _endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on with rows whose replies are over."""
    right = RunningTurn.advance
    monkeypatch.setattr(RunningTurn, "advance", lambda me, ids, _: right(me, ids, None))


def _misplaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the positions of a prompt's rest from its beginning."""
    right = Prompt.tokens

    def tokens(me: Any, first: int, *args: Any) -> Iterator[Any]:
        for token in right(me, first, *args):
            yield replace(token, position=token.position - first)

    monkeypatch.setattr(Prompt, "tokens", tokens)


def _straight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow no beam back."""
    right = Beams.replay
    monkeypatch.setattr(Beams, "replay", lambda me, rows: right(me, rows * 0))


def _undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep candidates that were rejected."""
    right, kept = Candidates.hold, dict[Any, Any]()

    def hold(me: Any, scores: Any, places: Any) -> None:
        if me not in kept:
            right(me, scores, places)
        kept.setdefault(me, me._waiting)

    monkeypatch.setattr(Candidates, "hold", hold)
    monkeypatch.setattr(Candidates, "reject", lambda me: None)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (_unrolled, {"no cache"}),
        (_endless, {"padded batch"}),
        (_unowned, {"own loop"}),
        (_lingering, {"left as found"}),
        (_misplaced, {"next turn", "prompt in chunks"}),
        (_straight, {"beam search"}),
        (_undecided, {"candidates"}),
    ],
)
def test_a_fault_in_one_way_is_found_in_it_alone(
    fault: Callable[[pytest.MonkeyPatch], None],
    found: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each way has its own code, and its own check."""
    fault(monkeypatch)
    certificate = examine(make_model("llama"), None)
    assert failures(certificate) == followed(found), render_table(certificate)


def test_a_watch_that_changes_what_is_said_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states are the model's own, and reading must not touch them."""
    right = Tap._norm_reader

    def careless(tap: Tap, slot: int) -> Callable[..., None]:
        read = right(tap, slot)

        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            read(module, args, output)
            if output.shape[1] == 1:  # spoken, not a whole text
                output.neg_()

        return hook

    monkeypatch.setattr(Tap, "_norm_reader", careless)
    certificate = examine(make_model("llama"), None)
    assert failures(certificate) == {"generate unchanged"}
    assert str(finding(certificate, "generate unchanged").measured).startswith("other tokens")


# What a check can and cannot tell


def test_scores_that_could_not_show_an_error_are_a_failure() -> None:
    """A model to which all tokens are one has the same states everywhere."""
    model = make_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[:] = model.model.embed_tokens.weight[0]
    told = finding(examine(model, None), "cached decoding")
    assert not told.passed
    assert "no error would be seen" in str(told.measured)


def test_a_way_that_emowatch_refuses_is_told_and_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody gets a wrong score there; before transformers 5 chunks are refused."""
    right = following.Follower.take

    def refuse(me: Any, decoding: Any, forward: Any) -> None:
        if decoding.chunked:
            raise UnsupportedError("Could not watch a prompt that is read in chunks.")
        right(me, decoding, forward)

    monkeypatch.setattr(following.Follower, "take", refuse)
    told = finding(examine(make_model("llama"), None), "prompt in chunks")
    assert told.passed and not told.tried
    assert str(told.measured).startswith("refused: Could not watch a ")


def test_a_loop_goes_on_from_what_the_model_has() -> None:
    """Mamba hands out its state under another name; RWKV's is not known at all."""
    made: Any = MambaConfig
    config = made(vocab_size=256, hidden_size=32, num_hidden_layers=3, state_size=8)
    mamba: Any = MambaForCausalLM(config)
    told = finding(examine(mamba.eval(), None), "own loop")
    assert told.passed and told.tried != OLD  # 4 asks for cache_position
    made = RwkvConfig
    config = made(vocab_size=256, hidden_size=32, num_hidden_layers=3, attention_hidden_size=32)
    rwkv: Any = RwkvForCausalLM(config)
    told = finding(examine(rwkv.eval(), None), "own loop")
    assert told.passed and not told.tried
    assert told.measured == "not available: the model takes no past_key_values"


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_a_way_that_ran_out_of_memory_is_a_failure(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of whether the model has it."""

    def full(cache: Any, *args: Any, **kwargs: Any) -> None:
        raise error("no memory left")

    monkeypatch.setattr(StaticCache, "__init__", full)
    certificate = examine(make_model("llama"), None)
    assert failures(certificate) == {"static cache"}
    told = finding(certificate, "static cache")
    assert told.tried and told.measured == f"{error.__name__}: no memory left"


def test_a_quantised_cache_is_not_tried_without_its_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the finding names what to install."""
    monkeypatch.setattr(ways, "is_optimum_quanto_available", lambda: False)
    monkeypatch.setattr(ways, "is_hqq_available", lambda: False)
    told = finding(examine(make_model("llama"), None), "quantised cache")
    assert told.passed and not told.tried
    assert told.measured == "not tried: install optimum-quanto"


@pytest.mark.skipif(not is_optimum_quanto_available(), reason="the library is not installed")
def test_a_quantised_cache_is_held_to_the_states_that_spoke() -> None:
    """They are not those of the finished text, which is told beside."""
    told = finding(examine(make_model("llama"), None), "quantised cache")
    assert told.passed
    assert "from the states that spoke" in str(told.measured)
    assert "from the finished text" in str(told.measured)


def test_it_takes_few_forwards() -> None:
    """On half a billion parameters in float32 each takes some tenths of a second."""
    model, counted = make_model("llama"), []
    model.register_forward_pre_hook(lambda *_: counted.append(1))
    assert examine(model, None).passed
    assert len(counted) <= 45


def test_scores_are_told_by_plain_numbers(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """A user's tokenizer goes through the same watch."""
    certificate = examine(make_model("llama"), tiny_tokenizer)
    assert certificate.passed
    assert 0 <= float(finding(certificate, "cached decoding").measured) < 1e-5


# Compiled code


@pytest.fixture
def compiling() -> Iterator[Any]:
    """Build a model whose own config has it compiled, by the compiler that takes no minute."""
    model = make_model("llama")
    kind: Any = CompileConfig
    model.generation_config.compile_config = kind(backend="eager", mode=None, fullgraph=True)
    torch.compiler.reset()
    yield model
    torch.compiler.reset()


def test_compiled_code_is_examined_on_request(compiling: nn.Module) -> None:
    """It is left out otherwise, and no code stays on the model."""
    assert "compiled code" not in {check.name for check in examine(compiling, None).checks}
    hooks = hook_count(compiling)
    told = finding(examine(compiling, None, compiled=True), "compiled code")
    assert told.passed
    assert isinstance(told.measured, float)
    assert not hasattr(compiling, "_compiled_call")
    assert hook_count(compiling) == hooks


def test_compiled_code_that_leaves_old_states_is_found(
    compiling: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a buffer would that nobody writes to again."""
    right, first = Tap.states_of_compiled, list[Any]()

    def stale(tap: Tap) -> Any:
        first.append(right(tap))
        return first[0]

    monkeypatch.setattr(Tap, "states_of_compiled", stale)
    assert failures(examine(compiling, None, compiled=True)) == {"compiled code"}


@pytest.mark.soak
def test_inductor_code_passes() -> None:
    """The compiler that people use takes a minute."""
    told = finding(examine(make_model("llama"), None, compiled=True), "compiled code")
    assert told.passed
    assert isinstance(told.measured, float)
