"""The doctor: healthy models pass, each defect is named with what it does to scores."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from emowatch.doctor import Certificate, Check, examine, render_table
from emowatch.doctor.checks import CHECKS, ON_REQUEST
from emowatch.doctor.patient import PROMPT_TOKENS, Patient
from tests.model.zoo import (
    FAMILIES,
    FORGETFUL,
    LEAKING,
    OLD,
    STATEFUL,
    hook_count,
    make_model,
    random_ids,
)


def finding(certificate: Certificate, name: str) -> Check:
    """Give one check by its name."""
    return next(check for check in certificate.checks if check.name == name)


def failures(certificate: Certificate) -> set[str]:
    """Name the checks that failed."""
    return {check.name for check in certificate.checks if not check.passed}


BY_STEPS = {
    "cached decoding",
    "own loop",
    "several replies",
    "padded batch",
    "next turn",
    "prompt in chunks",
    "static cache",
    "candidates",
    "beam search",
}
"""Checks of ways that read token after token from a cache."""


# Health


@pytest.mark.parametrize("family", FAMILIES)
def test_a_healthy_model_of_any_family_passes(
    family: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A doctor that finds fault with everybody is not asked again."""
    certificate = examine(make_model(family), tiny_tokenizer, name=family)
    found = {"left padding"} if family in LEAKING else set()
    if family in FORGETFUL and not OLD:
        found.add("next turn")
    if family == "bamba" and not OLD:
        found.add("own loop")  # it counts from 0 in each forward that is not told its positions
    if family == "jamba" and not OLD:
        found.add("prompt in chunks")
    if family in STATEFUL:
        found.add("beam search")  # its state is not reordered with the beams
    if family == "lfm2" and OLD:
        found.add("candidates")  # its convolutions do not take rejected ones back
    assert failures(certificate) == found, render_table(certificate)
    assert certificate.model == family
    assert (certificate.dtype, certificate.device) == ("float32", "cpu")
    assert finding(certificate, "hidden_states parity").measured == 0.0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_passes_within_wider_limits(
    dtype: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Most models are served so."""
    certificate = examine(make_model("llama").to(getattr(torch, dtype)), tiny_tokenizer)
    assert certificate.passed, render_table(certificate)
    assert certificate.dtype == dtype


def test_the_segments_that_were_learned_are_told(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Whoever wonders why all is `user` finds the reason here."""
    told = finding(examine(make_model("llama"), tiny_tokenizer), "chat template")
    assert told.measured == "segments: system, user, reply, special"
    tiny_tokenizer.chat_template = None
    told = finding(examine(make_model("llama"), tiny_tokenizer), "chat template")
    assert told.passed and not told.tried
    assert "no chat template" in str(told.measured)


def test_a_template_that_tells_nobody_apart_fails(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Every token of a prompt would count as the user's."""
    tiny_tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    certificate = examine(make_model("llama"), tiny_tokenizer)
    assert failures(certificate) == {"chat template"}
    assert "every prompt token counts as user" in finding(certificate, "chat template").meaning


def test_a_model_without_a_tokenizer_can_be_examined() -> None:
    """Everything but the template is a matter of the model alone."""
    assert examine(make_model("llama"), None).passed


def test_a_small_vocabulary_is_enough() -> None:
    """The prompt is made of what there is."""
    assert examine(make_model("llama", vocab_size=5), None).passed


def test_the_prompt_avoids_special_tokens(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """A model may do anything after a token that ends the text."""
    patient = Patient(make_model("llama"), tiny_tokenizer, None)
    ids = patient.prompt()
    assert ids.shape == (1, PROMPT_TOKENS)
    assert not set(ids[0].tolist()) & set(tiny_tokenizer.all_special_ids)
    assert len(set(ids[0].tolist())) == PROMPT_TOKENS


# Left as found


def test_the_model_is_left_as_it_was_found(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Its mode, hooks, weights, gradients and the random numbers belong to the user."""
    tiny_model.train()
    tiny_model.model.layers[1].eval()
    tiny_model.model.layers[0].register_forward_hook(lambda *_: None)
    before, hooks = (
        {k: v.clone() for k, v in tiny_model.state_dict().items()},
        hook_count(tiny_model),
    )
    generation = tiny_model.generation_config.to_dict()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    examine(tiny_model, tiny_tokenizer)
    assert torch.equal(torch.get_rng_state(), state)
    assert hook_count(tiny_model) == hooks
    assert tiny_model.training
    assert not tiny_model.model.layers[1].training
    assert all(torch.equal(v, before[k]) for k, v in tiny_model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in tiny_model.parameters())
    assert tiny_model.generation_config.to_dict() == generation


@pytest.mark.parametrize("asked_before", [True, False])
@torch.no_grad()
def test_hidden_states_are_still_reported_afterwards(asked_before: bool) -> None:
    """transformers 5 captures them by hooks and a flag; one without the other would break it."""
    model, ids = make_model("llama"), random_ids(1, 4)
    if asked_before:
        model(ids, output_hidden_states=True)
    hooks = hook_count(model)
    examine(model, None)
    assert hook_count(model) == hooks
    assert len(model(ids, output_hidden_states=True).hidden_states) == 4


# Illness


def test_weights_that_are_nan_are_named() -> None:
    """A conversion gone wrong shows first as scores that are all alike."""
    model = make_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
        model.model.norm.weight[0] = math.inf
    certificate = examine(model, None)
    assert "finite weights" in failures(certificate)
    named = finding(certificate, "finite weights")
    assert named.measured == "model.layers.1.mlp.up_proj.weight and 1 more"
    assert "States turn into NaN" in named.meaning
    json.dumps(certificate.to_json(), allow_nan=False)


def test_a_block_that_changes_its_input_in_place_is_found() -> None:
    """Then the state that is scored is no longer the state that was read in training."""

    class GreedyLayer(LlamaDecoderLayer):
        def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            result = super().forward(hidden_states, *args, **kwargs)
            hidden_states += 1.0
            return result

    model = make_model("llama")
    model.model.layers[1].__class__ = GreedyLayer
    certificate = examine(model, None)
    assert "offline parity" in failures(certificate)
    assert "changes its input in place" in finding(certificate, "offline parity").meaning


def test_a_block_that_is_run_past_its_entrance_is_found() -> None:
    """An optimiser may run the code of a class on what it holds; nothing is read then."""

    class DeafLayer(LlamaDecoderLayer):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return type(self).forward(self, *args, **kwargs)

    model = make_model("llama")
    model.model.layers[1].__class__ = DeafLayer
    certificate = examine(model, None)
    assert "hooks fire" in failures(certificate)
    heard = finding(certificate, "hooks fire")
    assert "The hooks of layers [1] did not fire" in str(heard.measured)
    assert "no state to score" in heard.meaning


@pytest.mark.parametrize("path", ["model.leyers", "lm_head"])
def test_a_wrong_path_leaves_out_every_check_that_needs_the_blocks(path: str) -> None:
    """None of them crashes, and none is run to say the same in its place."""
    certificate = examine(make_model("llama"), None, blocks=path)
    assert [check.name for check in certificate.failed] == ["blocks"]
    left_out = {check.name for check in certificate.unmeasured}
    assert {"hooks fire", "cached decoding", "beam search"} <= left_out
    measured = {check.name for check in certificate.checks} - left_out
    assert measured == {"watchable", "blocks", "mode", "finite weights", "chat template"}
    assert path in str(finding(certificate, "blocks").measured)
    assert certificate.dtype == "unknown"


def test_a_path_to_blocks_that_never_run_is_found() -> None:
    """A model may hold a second stack, such as that of a draft head."""
    model = make_model("llama")
    model.model.spare = make_model("llama", seed=1).model.layers
    certificate = examine(model, None, blocks="model.spare")
    assert not finding(certificate, "hooks fire").passed


def test_a_path_to_a_part_of_the_blocks_is_found() -> None:
    """Layers would be numbered wrongly by as many as are left out."""
    model = make_model("llama")
    model.model.some = nn.ModuleList(list(model.model.layers)[1:])
    certificate = examine(model, None, blocks="model.some")
    assert [check.name for check in certificate.failed] == ["blocks"]
    assert finding(certificate, "blocks").limit == "3 blocks"


def test_a_model_in_training_mode_is_told_so() -> None:
    """With dropout the same text has other scores each time."""
    model = make_model("gpt2", resid_pdrop=0.5).train()
    certificate = examine(model, None)
    assert {"mode", "offline parity", "generate unchanged"} <= failures(certificate)
    assert "model.eval()" in finding(certificate, "mode").meaning


def test_a_model_whose_rows_mix_is_found() -> None:
    """A text's score must not depend on who else is in the batch."""

    class MixingLayer(LlamaDecoderLayer):
        def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            mixed = hidden_states + hidden_states.mean(0, keepdim=True)
            return super().forward(mixed, *args, **kwargs)

    model = make_model("llama")
    model.model.layers[0].__class__ = MixingLayer
    ways = {"batch rows", "several replies", "padded batch", "beam search"}
    assert failures(examine(model, None)) == ways


def test_a_model_that_sees_its_padding_is_found() -> None:
    """GPT-2 without position ids was the first; a model may also ignore them."""
    model = make_model("gpt2")
    whole = model.transformer.wpe.forward
    positions = torch.arange(256)
    model.transformer.wpe.forward = lambda ids: whole(positions[: ids.shape[-1]][None])
    assert {"left padding", "cached decoding"} <= failures(examine(model, None))


def test_a_model_that_loses_its_place_when_it_speaks_is_found() -> None:
    """Positions that start again with each cached token: the states are plausible and wrong."""
    model = make_model("llama")
    rotary = model.model.rotary_emb
    right = rotary.forward

    def forgetful(x: Tensor, position_ids: Tensor) -> Any:
        is_step = position_ids.shape[-1] == 1
        return right(x, torch.zeros_like(position_ids) if is_step else position_ids)

    rotary.forward = forgetful
    chunks = {"prompt in chunks"} if OLD else set()  # refused there
    assert failures(examine(model, None)) == BY_STEPS - chunks


@pytest.mark.parametrize(
    ("defect", "check"),
    [
        ("DynamicCache.crop", "candidates"),
        ("DynamicCache.reorder_cache", "beam search"),
        ("StaticCache.update", "static cache"),
    ],
)
def test_a_cache_that_fails_one_way_of_decoding_is_found(
    defect: str, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rejected candidates stay, beams keep each other's past, or the past is lost."""
    kind, method = defect.split(".")
    whole = getattr(getattr(transformers, kind), method)

    def spoiled(cache: Any, *args: Any, **kwargs: Any) -> Any:
        if method == "update":
            keys, values = whole(cache, *args, **kwargs)
            return keys, values.flip(1)
        return None

    monkeypatch.setattr(getattr(transformers, kind), method, spoiled)
    assert check in failures(examine(make_model("llama"), None))


def test_a_way_that_the_model_does_not_have_is_no_failure() -> None:
    """Families with a recurrent state cannot take candidates back, and transformers says so."""
    told = finding(examine(make_model("bamba"), None), "candidates")
    assert told.passed
    assert "stateful models" in str(told.measured)


def test_a_compiled_model_is_told_so() -> None:
    """The commonest reason for a trace without tokens."""
    model = make_model("llama")
    model.compile(backend="eager")
    certificate = examine(model, None)
    assert [check.name for check in certificate.failed] == ["watchable"]
    assert "is compiled" in str(finding(certificate, "watchable").measured)


def test_a_way_of_generating_that_cannot_be_watched_is_found() -> None:
    """Some repositories bring their own, which may do anything."""
    model = make_model("llama")

    def generate(ids: Tensor, attention_mask: Tensor, max_new_tokens: int, **_: Any) -> Tensor:
        for _step in range(max_new_tokens):
            logits = model.forward(ids).logits  # past the model's hooks
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        return ids

    model.generate = generate
    certificate = examine(model, None)
    assert [check.name for check in certificate.failed] == ["generate unchanged"]
    told = str(finding(certificate, "generate unchanged").measured)
    assert "reached the blocks of LlamaForCausalLM past it" in told


def test_an_encoder_decoder_model_fails_without_a_crash() -> None:
    """The doctor is asked about any model."""
    config = transformers.T5Config(vocab_size=64, d_model=32, num_layers=2, num_heads=4, d_ff=32)
    certificate = examine(transformers.T5ForConditionalGeneration(config).eval(), None)
    assert "encoder-decoder" in str(finding(certificate, "blocks").measured)


def test_something_that_is_no_language_model_fails_without_a_crash() -> None:
    """Nor is any module refused a diagnosis."""
    certificate = examine(nn.Linear(2, 2), None)
    assert not certificate.passed
    assert "num_hidden_layers" in str(finding(certificate, "blocks").measured)


@pytest.mark.parametrize("kind", ["BertModel", "LlamaModel"])
def test_a_model_that_generates_no_text_is_told_so_once(kind: str) -> None:
    """An encoder has layers and hooks, and nothing to watch."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
    config = getattr(transformers, kind.replace("Model", "Config"))(**sizes, intermediate_size=64)
    certificate = examine(getattr(transformers, kind)(config).eval(), None)
    assert [check.name for check in certificate.failed] == ["watchable"]
    text = render_table(certificate)
    assert text.count("it generates no text") == 1
    assert text.count("Not run, as are all that need what 'watchable' found broken.") == 1
    assert len(text.splitlines()) < 3 + len(certificate.checks) + 6


# The certificate


def test_a_certificate_survives_json(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """It is kept with every session and every trace."""
    certificate = examine(make_model("llama"), tiny_tokenizer, name="tiny")
    table = certificate.to_json()
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    tried = [check.pop("tried") for check in table["checks"]]
    assert tried == [check.tried for check in certificate.checks]
    checks = tuple(Check(**check) for check in table.pop("checks"))
    assert table.pop("passed") is True
    assert Certificate(**table, checks=checks) == certificate


def test_the_table_shows_what_failed_and_what_it_means() -> None:
    """A reader wants the verdict, the number and its consequence."""
    sick = examine(make_model("llama"), None, blocks="model.leyers", name="sick")
    text = render_table(sick)
    assert text.startswith("sick (LlamaForCausalLM, ")
    assert "FAILED  blocks " in text
    assert "Name the list with blocks=." in text
    unmeasured = len(sick.unmeasured)
    assert f"\n1 of {len(sick.checks)} failed, {unmeasured} not measured, 1 not tried" in text
    assert text.count("not measured") == len(sick.unmeasured) + 1
    assert text.count("Not run, as are all that need what 'blocks' found broken.") == 1
    well = render_table(examine(make_model("llama"), None))
    assert "hidden_states parity  0 (limit 0)" in well


def test_a_check_with_nothing_to_try_is_no_check_that_passed() -> None:
    """The table, the JSON and the counts keep them apart."""
    one = examine(make_model("llama"), None)
    tried = tuple(check for check in one.checks if check.tried)
    assert render_table(replace(one, checks=tried)).endswith(f"All {len(tried)} checks passed.")
    (template,) = (check for check in one.checks if check.name == "chat template")
    some = replace(one, checks=(*tried, template))
    text = render_table(some)
    total = len(some.checks)
    assert text.endswith(f"{len(tried)} of {total} checks passed, 1 not tried or not available.")
    assert "-       chat template" in text
    assert some.passed and not some.failed
    assert [check["tried"] for check in some.to_json()["checks"]] == [True] * len(tried) + [False]
    failed = replace(tried[0], passed=False)
    text = render_table(replace(some, checks=(failed, *some.checks[1:])))
    assert text.endswith(f"1 of {total} failed, 1 not tried or not available.")


def test_the_table_is_clean() -> None:
    """Names and errors come from files of strangers."""
    hostile = "a\x1b[2J\nb"
    check = Check(name=hostile, passed=False, measured=hostile, limit=hostile, meaning=hostile)
    certificate = Certificate(
        model=hostile,
        model_class=hostile,
        emowatch="1",
        transformers="1",
        torch="1",
        dtype="float32",
        device="cpu",
        checks=(check,),
    )
    text = render_table(certificate)
    assert "\x1b" not in text
    assert len(text.splitlines()) == 7


def test_a_failure_of_a_rare_use_does_not_fail_the_model() -> None:
    """It is told with the use that it spoils; what every use needs weighs more."""
    one = examine(make_model("llama"), None)
    passed, *_ = one.checks
    rare = replace(passed, name="beam search", passed=False, only_for="beam search")
    spoiled = replace(one, checks=(*one.checks, rare))
    assert spoiled.failed and spoiled.passed
    assert "Only for beam search." in render_table(spoiled)
    assert "\n1 of 23 failed, none that every use needs" in render_table(spoiled)
    broken = replace(one, checks=(*one.checks, replace(rare, only_for="")))
    assert not broken.passed


def test_the_guide_has_every_check_in_the_doctors_own_words() -> None:
    """A table that is written by hand grows old."""
    guide = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = [
        f"| {t.name} | {t.meaning} | {t.only_for or 'every use'} |" for t in CHECKS + ON_REQUEST
    ]
    found = [line for line in guide.splitlines() if line.startswith("| ")]
    assert found[1:] == rows
