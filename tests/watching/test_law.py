"""The law of decoding: each kept reply token has exactly one score, that of the state which a
single forward over the finished text has at its place. Whatever the mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import UnsupportedError
from emowatch.model.segments import SegmentParser
from emowatch.trace import Trace
from tests.model.zoo import (
    BLOCKS,
    FAMILIES,
    FORGETFUL,
    LEAKING,
    OLD,
    VOCABULARY,
    WIDTH,
    hook_count,
    make_model,
    random_ids,
)
from tests.watching.modes import CHUNKS, MODES, Said
from tests.watching.speaking import NEW, PROMPT, Plugin, bank_for, speak


@torch.no_grad()
def teacher_forced(model: Any, bank: ProbeBank, text: Tensor, prompt: int) -> Tensor:
    """Score a whole text ``[time]`` at each state, ``[time, layers, labels]``."""
    hidden = model(text[None], output_hidden_states=True).hidden_states
    states = torch.stack([hidden[layer][0] for layer in bank.card.layers])
    offsets = (torch.arange(len(text)) - prompt + 1).clamp(min=0)
    return bank.heads.scores(states, offsets).transpose(0, 1)


def reply_of(said: Said, sequence: int) -> list[int]:
    """Cut a returned row after its end token, or after the last of its tokens."""
    reply: list[int] = said.sequences[sequence, said.mask.shape[1] :].tolist()
    for place, token in enumerate(reply):
        if token in said.ends:
            return reply[: place + 1]
    return reply


def segments_of(parser: SegmentParser, prompt: Tensor, reply: list[int]) -> list[str]:
    """Tell the segment of each state of a finished text: the last of the prompt has the reply's."""
    segments, following = parser.follow(prompt.tolist())
    return [*segments[:-1], following.segment, *(following.take(token) for token in reply[:-1])]


def check_law(model: Any, bank: ProbeBank, said: Said, trace: Trace, tokenizer: Any = None) -> None:
    """Compare what a watch kept of its last turn with forwards over what was returned."""
    parser = SegmentParser(tokenizer)
    turn = trace.turns[-1].index
    assert [t.sequence for t in trace.turns if t.index == turn] == list(range(len(said.sequences)))
    for sequence, ids in enumerate(said.sequences):
        columns = said.mask.shape[1]
        own = ids[:columns][said.mask[sequence] != 0]
        reply = reply_of(said, sequence)
        text = torch.cat([own, torch.tensor(reply[:-1], dtype=torch.long)])
        mine = [t for t in trace.tokens if t.turn == turn and t.sequence == sequence]
        prompt = [t for t in mine if t.offset is None]
        scored = [t for t in mine if t.offset is not None]
        assert [t.position for t in prompt] == list(range(said.read, len(own) - 1))
        assert [t.offset for t in scored] == list(range(len(reply)))
        assert [t.position for t in scored] == list(range(len(own) - 1, len(text)))
        told = segments_of(parser, own[said.untold :], reply)
        assert [t.segment for t in mine] == told[said.read - said.untold :]
        if tokenizer is not None:  # or no segment could be wrong
            assert len({t.segment for t in prompt}) > 1
        wanted = teacher_forced(model, bank, text, len(own)).numpy()
        for token in mine:
            assert token.layer_scores is not None
            assert np.allclose(token.layer_scores, wanted[token.position], atol=2e-5)
        kept = next(t for t in trace.turns if (t.index, t.sequence) == (turn, sequence))
        assert (kept.prompt_tokens, kept.reply_tokens) == (len(own), len(reply))
        if kept.settings:  # of generate; an own loop tells nobody of its last token
            assert kept.token_ids == tuple(reply)
            assert kept.finish_reason == ("stop" if reply[-1] in said.ends else "length")


def obey(model: Any, bank: ProbeBank, tokenizer: Any, mode: str) -> None:
    """Speak unwatched and watched, and compare.

    Where nobody hears of tokens as they come, they are scored several at a time.
    """
    plugin = Plugin()
    torch.manual_seed(4)
    before = MODES[mode](model)
    for plugins in ([plugin], []):
        hooks = hook_count(model)  # checking the law leaves transformers' own
        torch.manual_seed(4)
        watch = emowatch.watch(model, tokenizer, probes=bank, layers="all", plugins=plugins)
        with watch:
            said = MODES[mode](model)
        assert torch.equal(before.sequences, said.sequences)
        assert hook_count(model) == hooks
        check_law(model, bank, said, watch.trace, tokenizer)
        if plugins:
            assert plugin.heard == list(watch.trace.tokens)


@pytest.mark.parametrize("mode", [mode for mode in MODES if not (OLD and mode in CHUNKS)])
@pytest.mark.filterwarnings("ignore::UserWarning")  # transformers' own, on rare modes
def test_each_kept_reply_token_is_scored_exactly_once(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, mode: str
) -> None:
    """And the model says to the bit what it says unwatched; no hook stays."""
    obey(model, bank, tiny_tokenizer, mode)


# The families, each with the next of these modes: all of them have each mode in turn.
TURNS = (
    "batch with ends",
    "beams with ends",
    "look-up",
    "batch without cache",
    "static batch",
    "an own loop",
    "batch in chunks",
    "next turn",
)
PAIRS = [(family, TURNS[place % len(TURNS)]) for place, family in enumerate(FAMILIES)]
SIMPLE = {"bamba", "falcon_h1", "granitemoehybrid", "qwen3_next", "lfm2"} | FORGETFUL
"""Families with a recurrent state, for which transformers itself has no assisted decoding."""
WHOLE = {
    *("gpt2", "gpt_bigcode", "gpt_neo", "gptj", "gpt_neox", "gpt_oss", "codegen", "opt", "xglm"),
    *("bloom", "mpt", "falcon", "persimmon", "stablelm", "cohere2", "nemotron", "exaone4"),
}
"""Families whose forward runs all blocks, whatever number its config says: an early exit of
transformers itself ends there in an IndexError, watched or not."""


@pytest.mark.parametrize(("family", "mode"), PAIRS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_law_holds_in_every_family(
    family: str, mode: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Caches, masks and positions differ by family; what a watch keeps does not."""
    if family in SIMPLE or (OLD and mode in CHUNKS):
        mode = "batch with ends"
    if family in LEAKING:
        pytest.skip("transformers 4 lets the recurrent state of this family take up padding")
    model = make_model(family)
    obey(model, bank_for(model), tiny_tokenizer, mode)


def _mamba() -> Any:
    config: Any = MambaConfig
    torch.manual_seed(0)
    model: Any = MambaForCausalLM(
        config(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=BLOCKS,
            state_size=4,
            initializer_range=0.3,
            eos_token_id=None,
        )
    )
    return model.eval()


@torch.no_grad()
def test_layers_of_a_purely_recurrent_model_are_the_inputs_of_blocks_too() -> None:
    """Whose hidden_states begin with what block 0 puts out, so that their numbers differ."""
    model = _mamba()
    bank = bank_for(model, layers=tuple(range(1, BLOCKS + 1)))
    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        text = speak(model, random_ids(1, PROMPT))[:, :-1]
    hidden = model(text, output_hidden_states=True).hidden_states
    states = torch.stack([*hidden[: BLOCKS - 1], hidden[BLOCKS]])[:, 0, PROMPT - 1 :]
    wanted = bank.heads.scores(states, torch.arange(NEW)).transpose(0, 1)
    reply = watch.trace.reply()
    assert len(reply) == NEW
    for token, score in zip(reply, wanted.numpy(), strict=True):
        assert token.layer_scores is not None
        assert np.allclose(token.layer_scores, score, atol=2e-5)


@torch.no_grad()
def test_an_own_loop_over_a_recurrent_state_is_followed_or_refused() -> None:
    """The state does not tell how much it has read; the watch that saw it made knows."""
    model = _mamba()
    bank, ids = bank_for(model), random_ids(1, PROMPT)

    def step(told: Tensor, state: Any, read: int) -> Any:
        places = {"cache_position": torch.arange(read, read + told.shape[1])} if OLD else {}
        return model(told, cache_params=state, use_cache=True, **places)

    def loop() -> None:
        told, state, read = ids, None, 0
        for _ in range(NEW):
            output = step(told, state, read)
            read += told.shape[1]
            state, told = output.cache_params, output.logits[:, -1:].argmax(-1)

    watches = []
    for say in (lambda: speak(model, ids), loop):
        with emowatch.watch(model, None, probes=bank, layers="all") as watch:
            say()
        watches.append(watch.trace.tokens)
    first, second = ([(t.turn, t.position, t.offset) for t in tokens] for tokens in watches)
    assert first == second
    for one, other in zip(*watches, strict=True):
        assert np.allclose(one.layer_scores, other.layer_scores, atol=2e-5)
    state = step(ids, None, 0).cache_params
    if not OLD:  # 4 passes cache_position, which tells
        with emowatch.watch(model, None, probes=bank):
            with pytest.raises(UnsupportedError, match="from a recurrent state of another turn"):
                step(ids[:, :1], state, PROMPT)


@pytest.mark.soak
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in SIMPLE])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_law_holds_in_every_family_and_mode(
    family: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each family with each mode."""
    model = make_model(family)
    for mode in MODES:
        if not (OLD and mode in CHUNKS) and not (family in WHOLE and mode == "early exit"):
            obey(model, bank_for(model), tiny_tokenizer, mode)
