"""Judges: what they see, what they refuse, and that each can be right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emowatch.bank import ProbeBank, load_bank
from emowatch.errors import (
    ModelError,
    ProbeMismatchError,
    RetryableError,
    StudyError,
    UsageError,
)
from emowatch.labels import EKMAN7
from emowatch.model.loading import LoadedModel, load_model
from emowatch.studies.asking import Verdict
from emowatch.studies.judges import Judge, JudgeSpec, judged_once
from emowatch.studies.setting import Setting
from emowatch.workshop.building.prompting import PromptTemplate
from tests.studies.taught import LABELS, corpus_of, teach, texts_of
from tests.workshop.building.protocol_server import KEY, ProtocolServer
from tests.workshop.synthetic import WORDS

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

QUESTION = PromptTemplate.parse("emotion", "{{ text }}")
SPOKEN = {
    "anger": "How dare they! I am furious, that is an outrage and I will not stand for it.",
    "sadness": "I am so sorry. I could cry, it is such a sad and heavy loss.",
    "joy": "Hooray! How wonderful, I am so happy and delighted for you!",
}


@pytest.fixture
def setting(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Setting:
    """Give a setting with made-up texts of three classes."""
    return Setting(
        loaded=LoadedModel(tiny_model, tiny_tokenizer, "tiny"),
        train=corpus_of(*texts_of(12)),
        test=corpus_of(*texts_of(4, first=50)),
        work=tmp_path,
    )


@pytest.mark.parametrize(
    "text",
    ["", "oracle", "bank", "bank:", "model:", "classifier:x", "classifier:", "x:y", "endpoint:"],
)
def test_a_judge_that_there_is_not_is_refused(text: str) -> None:
    """With the four that there are."""
    with pytest.raises(UsageError, match="name classifier, bank:NAME, model:ID or endpoint:MODEL"):
        JudgeSpec.parse(text)


def test_what_a_judge_is_made_of_is_looked_for_at_once() -> None:
    """Not after an hour of writing replies."""
    with pytest.raises(UsageError, match="Could not find a bank 'demo-tone'"):
        JudgeSpec.parse("bank:demo-tone")
    with pytest.raises(ModelError, match="no/such/folder"):
        JudgeSpec.parse("model:no/such/folder")


def test_the_classifier_knows_the_words_of_the_training_texts(setting: Setting) -> None:
    """It never saw the numbers behind them."""
    judge = JudgeSpec.parse("classifier").open(setting, QUESTION)
    texts, labels = texts_of(3, first=900)
    assert [verdict.label for verdict in judge.judge(texts)] == labels


def test_a_classifier_with_nothing_to_learn_is_refused(setting: Setting) -> None:
    """No word stands in two of these texts."""
    train = corpus_of(["one", "two", "three"], [0, 1, 2])
    with pytest.raises(StudyError, match="name another --judge"):
        JudgeSpec.parse("classifier").open(replace(setting, train=train), QUESTION)


def test_a_model_judges_by_its_answer(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    setting: Setting,
    tmp_path: Path,
) -> None:
    """Loaded from its folder, asked, read."""
    folder = tmp_path / "judge"
    teach(tiny_model, tiny_tokenizer)
    tiny_model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    judge = JudgeSpec.parse(f"model:{folder}").open(setting, QUESTION)
    texts, labels = texts_of(3)
    assert [verdict.label for verdict in judge.judge(texts)] == labels
    assert judge.name == "model judge"


def test_a_model_that_judges_itself_is_told_of(setting: Setting, tmp_path: Path) -> None:
    """Its own words are no independent witness."""
    folder = tmp_path / "tiny"
    for part in (setting.loaded.model, setting.loaded.tokenizer):
        part.save_pretrained(folder)
    judge = JudgeSpec.parse(f"model:{folder}").open(setting, QUESTION)
    assert "judges its own words" in judge.caution


def test_the_tone_bank_reads_replies_of_any_model(setting: Setting) -> None:
    """In the states of the embedded model, which it was trained for."""
    test = corpus_of(["a text"] * 7, range(7), EKMAN7)
    judge = JudgeSpec.parse("bank:demo-tone7").open(replace(setting, test=test), QUESTION)
    verdicts = judge.judge(list(SPOKEN.values()))
    assert [verdict.label for verdict in verdicts] == [EKMAN7.index(tone) for tone in SPOKEN]
    assert "emowatch-demo" in judge.caution
    again = judge.judge(list(SPOKEN.values()))
    assert again == verdicts


def test_a_bank_that_names_a_label_nobody_asked_for_has_no_verdict(setting: Setting) -> None:
    """Joy is not among the labels of these texts."""
    test = corpus_of(["a", "b"], [0, 1], ("anger", "sadness"))
    judge = JudgeSpec.parse("bank:demo-tone7").open(replace(setting, test=test), QUESTION)
    found = judge.judge(list(SPOKEN.values()))
    assert found == [Verdict(0), Verdict(1), Verdict(None, "unknown label")]


def test_a_bank_that_lacks_a_label_is_refused(setting: Setting) -> None:
    """It could never be right about it."""
    test = corpus_of(["a", "b"], [0, 1], ("joy", "boredom"))
    with pytest.raises(UsageError, match="no label boredom"):
        JudgeSpec.parse("bank:demo-tone7").open(replace(setting, test=test), QUESTION)


def test_a_bank_that_needs_the_models_own_reply_is_refused() -> None:
    """It would let the model reply to the reply."""
    with pytest.raises(UsageError, match="a judge is given a text"):
        JudgeSpec.parse("bank:demo-ekman7")


def test_a_bank_of_a_third_model_is_refused(
    setting: Setting, tiny_bank: ProbeBank, tmp_path: Path
) -> None:
    """Neither the speaker nor the embedded model can be read by it."""
    folder = tmp_path / "bank"
    tiny_bank.save(folder)
    test = corpus_of(["a text"] * 7, range(7), EKMAN7)
    other = replace(setting, loaded=load_model(), test=test)
    with pytest.raises(ProbeMismatchError, match="was trained for"):
        JudgeSpec.parse(f"bank:{folder}").open(other, QUESTION)


def test_one_reply_is_judged_once_and_silence_never(setting: Setting) -> None:
    """A judge may cost money."""
    classifier = JudgeSpec.parse("classifier").open(setting, QUESTION)
    asked: list[str] = []

    class Counted:
        name, caution = classifier.name, classifier.caution

        def judge(self, texts: Sequence[str]) -> list[Verdict]:
            asked.extend(texts)
            return classifier.judge(texts)

    verdicts = judged_once(Counted(), ["zoo", " ", "aha", "zoo"])
    assert asked == ["zoo", "aha"]
    assert verdicts[0] == verdicts[3] and verdicts[1] == Verdict(None, "empty reply")
    assert verdicts[2].label == LABELS.index("sadness")


def test_the_shipped_bank_reads_replies() -> None:
    """What the messages above recommend must be there."""
    card = load_bank("demo-tone7").card
    assert (card.target, card.readout) == ("reply", "reply")


def read_words(prompt: str) -> str:
    """Judge as the endpoint's model does here: by the words of each class."""
    found = [label for label in LABELS if any(word in prompt for word in WORDS[label])]
    return json.dumps({"emotion": found[0]}) if found else "I cannot say."


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    """Run a real server on this machine that lets one key in."""
    made = ProtocolServer(read_words, key=KEY)
    yield made
    made.close()


def judge_at(server: ProtocolServer, setting: Setting) -> Judge:
    """Name the endpoint as the command line does."""
    spec = JudgeSpec.parse("endpoint:tiny", base_url=server.url, api_key_env="JUDGE_KEY")
    return spec.open(setting, QUESTION)


def test_an_endpoint_judges_and_is_paid_once(
    server: ProtocolServer, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that cannot be read have no verdict; a second run asks for nothing."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    texts, labels = texts_of(4)
    for _ in range(2):
        judge = judge_at(server, setting)
        verdicts = judge.judge([*texts, "no word of theirs"])
        assert verdicts == [*map(Verdict, labels), Verdict(None, "not JSON")]
        assert len(server.bodies) == len(texts) + 2  # with the one that the key is tried with
    assert server.bodies[0]["max_tokens"] == 64
    assert judge.name == "endpoint tiny"
    asked = (*texts, "!", "I am happy.")
    assert f"wrote {sum(max(1, len(read_words(t)) // 4) for t in asked)}." in judge.caution


def test_an_endpoint_that_breaks_off_loses_no_answer(
    server: ProtocolServer, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as what may pass, and the same command goes on from there."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    texts, labels = texts_of(4)
    answered = judge_at(server, setting).judge(texts[:6])
    server.close()
    spec = JudgeSpec.parse("endpoint:tiny", base_url=server.url, api_key_env="JUDGE_KEY")
    assert spec.endpoint is not None
    hasty = replace(spec, endpoint=replace(spec.endpoint, attempts=1))
    with pytest.raises(RetryableError, match="7 answers so far are kept"):
        hasty.open(setting, QUESTION).judge(texts)
    assert [verdict.label for verdict in answered] == labels[:6]


def test_a_wrong_key_is_told_at_once_and_never_shown(
    server: ProtocolServer, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No verdict would come of trying on."""
    monkeypatch.setenv("JUDGE_KEY", "sk-wrong-key")
    with pytest.raises(UsageError, match="the key in JUDGE_KEY is refused") as refused:
        judge_at(server, setting)
    assert "sk-wrong-key" not in str(refused.value)


def test_an_endpoint_and_its_address_belong_together() -> None:
    """One without the other is a slip."""
    with pytest.raises(UsageError, match="give its address with --base-url"):
        JudgeSpec.parse("endpoint:tiny")
    with pytest.raises(UsageError, match="address of endpoint:MODEL"):
        JudgeSpec.parse("classifier", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="--base-url"):
        JudgeSpec.parse("endpoint:tiny", base_url="ftp://127.0.0.1/v1")
