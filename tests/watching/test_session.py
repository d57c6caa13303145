"""The session: it changes nothing that a model says, leaves nothing behind, and says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast
from transformers.generation.streamers import BaseStreamer

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import ProbeMismatchError, TapError, UsageError
from emowatch.records import Session
from tests.model.zoo import FAMILIES, WIDTH, hook_count, left_padded, make_model, random_ids
from tests.watching.speaking import NEW, PROMPT, Plugin, bank_for, speak

# Nothing changes


@pytest.mark.parametrize("family", FAMILIES)
def test_a_watched_model_says_what_it_said_before(
    family: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """To the bit, in every family: a monitor that changes the reply measures itself."""
    model, (ids, mask) = make_model(family), left_padded((4, PROMPT))
    hooks = hook_count(model)
    before = speak(model, ids, mask, output_logits=True, return_dict_in_generate=True)
    with emowatch.watch(model, tiny_tokenizer, probes=bank_for(model), layers="all") as watch:
        during = speak(model, ids, mask, output_logits=True, return_dict_in_generate=True)
    after = speak(model, ids, mask)
    assert torch.equal(before.sequences, during.sequences)
    assert all(torch.equal(a, b) for a, b in zip(before.logits, during.logits, strict=True))
    assert torch.equal(before.sequences, after)
    assert hook_count(model) == hooks
    assert len(watch.trace.reply()) == after.shape[1] - PROMPT


def test_sampling_draws_the_same_tokens(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Watching must not use up random numbers."""
    options: dict[str, Any] = {"do_sample": True, "temperature": 1.5, "num_return_sequences": 3}
    torch.manual_seed(11)
    before = speak(model, random_ids(1, PROMPT), **options)
    torch.manual_seed(11)
    with emowatch.watch(model, tiny_tokenizer, probes=bank, plugins=[Plugin()]):
        during = speak(model, random_ids(1, PROMPT), **options)
    assert torch.equal(before, during)


def test_a_model_in_training_mode_is_watched_with_a_word(
    bank: ProbeBank, model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dropout is at random, and so are the scores."""
    emowatch.watch(model.train(), None, probes=bank)
    assert "in training mode" in capsys.readouterr().err
    emowatch.watch(model.eval(), None, probes=bank)
    assert "training" not in capsys.readouterr().err


def test_the_name_of_a_model_is_no_model(bank: ProbeBank) -> None:
    """Elsewhere it would do."""
    name: Any = "models/llama"
    with pytest.raises(UsageError, match=r"'models/llama': that is a name\. Load the model"):
        emowatch.watch(name, None, probes=bank)


@pytest.mark.parametrize("place", ["prefill", "later", "plugin", "streamer", "stop"])
def test_no_hooks_stay_after_an_exception(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast, place: str
) -> None:
    """Wherever it comes from, and the exception is the one that is seen."""
    hooks, calls = hook_count(model), 0
    block = model.model.layers[1]
    whole = block.forward

    def fail(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= (1 if place == "prefill" else 3):
            raise RuntimeError("lightning")
        return whole(*args, **kwargs)

    class Failing(BaseStreamer):  # type: ignore[misc, unused-ignore]  # untyped before 5
        def put(self, value: Any) -> None:
            fail()

        def end(self) -> None: ...

    options: dict[str, Any] = {}
    plugins: list[Any] = []
    if place in ("prefill", "later"):
        block.forward = fail
    elif place == "plugin":
        whole = lambda *_: None  # noqa: E731
        plugins = [Plugin(judge=fail)]
    elif place == "streamer":
        whole = lambda *_: None  # noqa: E731
        options["streamer"] = Failing()
    else:
        whole = lambda *_, **__: torch.zeros(1, dtype=torch.bool)  # noqa: E731
        options["stopping_criteria"] = [fail]
    watch = emowatch.watch(
        model, tiny_tokenizer, probes=bank, plugins=plugins, on_plugin_error="raise"
    )
    with pytest.raises(Exception, match="lightning"), watch:
        speak(model, random_ids(1, PROMPT), **options)
    assert hook_count(model) == hooks
    assert watch.trace.complete
    assert {turn.finish_reason for turn in watch.trace.turns} <= {"failed"}


def test_a_watch_cannot_be_entered_twice(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Two sets of hooks would score each token twice."""
    hooks = hook_count(model)
    with emowatch.watch(model, tiny_tokenizer, probes=bank) as watch:
        with pytest.raises(TapError, match="already on its model"):
            watch.__enter__()
    assert hook_count(model) == hooks


def test_two_watches_at_once_do_not_see_each_other(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A logger around a whole program, and a closer look inside it."""
    other = bank_for(model, seed=1)
    with (
        emowatch.watch(model, tiny_tokenizer, probes=bank) as outer,
        emowatch.watch(model, tiny_tokenizer, probes=other) as inner,
    ):
        speak(model, random_ids(1, PROMPT))
    assert len(outer.trace.tokens) == len(inner.trace.tokens) == PROMPT + NEW - 1
    assert not np.array_equal(outer.trace.tokens.array(), inner.trace.tokens.array())


# Banks


def test_a_bank_of_another_model_is_refused_before_any_hook(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Nothing must be left behind by what never began."""
    hooks = hook_count(model)
    with pytest.raises(ProbeMismatchError, match="not for 'mine'"):
        emowatch.watch(
            model, tiny_tokenizer, probes=bank_for(make_model("gpt2")), model_name="mine"
        )
    assert hook_count(model) == hooks


@pytest.mark.parametrize("strict", [True, False])
def test_a_bank_of_other_weights_is_named_on_stderr_or_refused(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, strict: bool, capfd: Any
) -> None:
    """It may fit a fine-tuned model, and that is for the user to decide."""
    other = bank_for(make_model("llama", seed=1))
    if strict:
        with pytest.raises(ProbeMismatchError, match="weights differ"):
            emowatch.watch(model, tiny_tokenizer, probes=other, strict=True)
    else:
        emowatch.watch(model, tiny_tokenizer, probes=other)
        said = capfd.readouterr()
        assert "mood was trained with other weights than this model's" in said.err
        assert not said.out


def test_banks_must_be_named_and_told_apart(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Scores go by the name of their bank."""
    nothing: tuple[Any, ...] = ([], (), None)
    for probes in nothing:
        with pytest.raises(UsageError, match="No bank was named"):
            emowatch.watch(model, tiny_tokenizer, probes=probes)
    with pytest.raises(UsageError, match="Two banks go by the same name: mood, mood"):
        emowatch.watch(model, tiny_tokenizer, probes=[bank, bank])


# What it says of itself


def test_a_session_says_what_is_watched(
    model: Any, bank: ProbeBank, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Plugins and traces know the model by this alone."""
    with emowatch.watch(
        model, tiny_tokenizer, probes=bank, model_name="mine", certificate={"passed": True}
    ) as watch:
        pass
    session: Session = watch.session
    assert (session.model, session.n_layers, session.d_model) == ("mine", 3, WIDTH)
    assert session.banks == (bank.info,)
    assert session.certificate == {"passed": True}
    assert watch.trace.complete
    assert not watch.trace.turns


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("/home/ann/secret/tiny", "tiny"),
        ("~/secret/tiny", "tiny"),
        ("../secret/tiny/", "tiny"),
        ("owner/tiny", "owner/tiny"),
        ("", "model"),
    ],
)
def test_a_session_names_a_folder_by_its_last_part(
    told: str, name: str, model: Any, bank: ProbeBank, tmp_path: Path
) -> None:
    """The rest of a path says who the user is, also in a trace without text."""
    model.config.name_or_path = told
    path = tmp_path / "t.jsonl"
    with emowatch.watch(model, None, probes=bank, plugins=[("jsonl-log", {"path": path})]):
        pass
    assert json.loads(path.read_text().splitlines()[0])["model"] == name


def test_a_folder_that_is_there_is_named_by_its_last_part(
    model: Any, bank: ProbeBank, tmp_path: Path
) -> None:
    """As the command line names it."""
    folder = tmp_path / "a tiny model"
    folder.mkdir()
    model.config.name_or_path = str(folder)
    assert emowatch.watch(model, None, probes=bank).session.model == "a tiny model"


# Seeds


def test_the_seed_that_is_told_stands_in_the_session(model: Any, bank: ProbeBank) -> None:
    """Whoever seeds torch later knows the number; without one torch's own is taken."""
    torch.manual_seed(11)
    assert emowatch.watch(model, None, probes=bank, seed=5).session.seed == 5
    assert emowatch.watch(model, None, probes=bank).session.seed == 11
    assert torch.initial_seed() == 11


def test_the_seed_of_a_turn_is_that_turns_alone(model: Any, bank: ProbeBank) -> None:
    """A number that belongs to another reply would be worse than none."""
    ids = random_ids(1, PROMPT)
    with emowatch.watch(model, None, probes=bank) as watch:
        watch.seed_turn(3)
        speak(model, ids)
        speak(model, ids)
        watch.end_turn()
    assert [turn.settings.get("seed") for turn in watch.trace.turns] == [3, None]
