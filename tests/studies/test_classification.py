"""Answers beside probes: the study on models whose answers are known, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emowatch.model.loading import LoadedModel
from emowatch.studies.classification import study_classification
from emowatch.studies.findings import Cell, Findings
from emowatch.studies.published import TABLE_2
from emowatch.studies.setting import Setting
from emowatch.workshop.building.prompting import PromptTemplate
from emowatch.workshop.metrics import Estimate
from tests.cli.commands import Cli, refused
from tests.cli.conftest import cli, data, model, one_thread
from tests.studies.taught import corpus_of, teach, texts_of

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["cli", "data", "model", "one_thread"]

QUESTION = PromptTemplate.parse("emotion", "{{ text }}")


@pytest.fixture
def setting(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Setting:
    """Give a setting of a model that answers nonsense, with linear heads at two layers."""
    return Setting(
        loaded=LoadedModel(tiny_model, tiny_tokenizer, "tiny"),
        train=corpus_of(*texts_of(24)),
        test=corpus_of(*texts_of(6, first=90)),
        work=tmp_path / "work",
        head="linear",
        layers="0,3",
    )


def cell(findings: Findings, condition: str, column: str) -> Cell:
    """Give one cell of the table of conditions."""
    table = findings.tables[0]
    names = table.column("condition")
    (place,) = [n for n, name in enumerate(names) if str(name).startswith(condition)]
    return table.rows[place][table.columns.index(column)]


def value(found: Cell) -> float:
    """Give the figure of an estimate."""
    assert isinstance(found, Estimate)
    return found.value


def test_a_model_that_answers_rightly_is_right(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, setting: Setting
) -> None:
    """Through its own answers, which it was taught beforehand."""
    loaded = teach(tiny_model, tiny_tokenizer)
    test = corpus_of(*texts_of(6))
    found = study_classification(replace(setting, loaded=loaded, test=test), QUESTION, most=32)
    assert value(cell(found, "zero-shot, answered", "coverage")) == 1
    assert value(cell(found, "zero-shot, all", "accuracy")) == 1
    null = cell(found, "zero-shot, all", "null")
    assert isinstance(null, Estimate) and null.low < 1 / 3 < null.high
    assert found.numbers["chance"] == pytest.approx(1 / 3, abs=1e-3)


def test_a_model_that_answers_nonsense_is_told_of(setting: Setting) -> None:
    """No answers: no accuracy of them, none of all, and a sentence that says so."""
    found = study_classification(setting, QUESTION, most=8)
    coverage = cell(found, "zero-shot, answered", "coverage")
    assert isinstance(coverage, Estimate) and coverage.value == 0 < coverage.high
    assert cell(found, "zero-shot, answered", "accuracy") is None
    assert cell(found, "zero-shot, answered", "n") == 0
    assert value(cell(found, "zero-shot, all", "accuracy")) == 0
    assert "says next to nothing" in found.notes[0]
    assert sum(int(str(n)) for n in found.tables[1].column("texts")) == len(setting.test)


def test_what_is_not_measured_is_said_in_the_row(setting: Setting) -> None:
    """Nobody named a base model, and nobody shall take the gap for a zero."""
    found = study_classification(setting, QUESTION, most=8)
    name = "pre-trained (not measured: name the base model with --base)"
    assert cell(found, name, "accuracy") is None
    assert isinstance(cell(found, "raw", "accuracy"), Estimate)
    assert isinstance(cell(found, "template", "accuracy"), Estimate)


def test_a_model_without_a_template_has_the_raw_row(setting: Setting) -> None:
    """A base model is worth a study of its own."""
    setting.loaded.tokenizer.chat_template = None
    found = study_classification(setting, QUESTION, most=8)
    name = "template (not measured: the tokenizer has no chat template)"
    assert cell(found, name, "accuracy") is None
    assert isinstance(cell(found, "raw", "accuracy"), Estimate)
    assert any("asked in plain text" in note for note in found.notes)


def test_the_base_model_is_opened_last_and_read_raw(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, setting: Setting
) -> None:
    """It is the same model here, so that its row must be the raw one again."""
    opened: list[bool] = []

    def base() -> LoadedModel:
        opened.append(any((setting.work / "banks").iterdir()))
        return LoadedModel(tiny_model, tiny_tokenizer, "base")

    found = study_classification(setting, QUESTION, base=base, most=8)
    assert opened == [True]
    assert cell(found, "pre-trained", "accuracy") == cell(found, "raw", "accuracy")


def test_published_figures_stand_beside_the_papers_models(setting: Setting) -> None:
    """By the model's name on the Hub; the last layer's row has that of the probe."""
    named = replace(setting, loaded=replace(setting.loaded, name="Qwen/Qwen3-4B"))
    found = study_classification(named, QUESTION, most=8)
    theirs = TABLE_2["Qwen3-4B"]
    assert cell(found, "zero-shot, answered", "published") == theirs["zero-shot"]
    assert cell(found, "pre-trained", "published") == theirs["pre-trained"]
    (raw, *_) = [row for row in found.tables[0].rows if str(row[0]).startswith("raw, last")]
    assert raw[-1] == theirs["raw"]
    assert "Published coverage: 0.998" in found.tables[0].note
    assert any("opposite of the three LLaMAs" in note for note in found.notes)


def test_states_are_shared_with_other_studies(setting: Setting) -> None:
    """A second run asks, reads and trains nothing; heads of shuffled labels are not kept."""
    first = study_classification(setting, QUESTION, most=8)
    steps: list[str] = []

    def told(step: str, done: int, total: int) -> None:
        if done < total:
            steps.append(step)

    again = study_classification(replace(setting, report=told), QUESTION, most=8)
    assert set(steps) == {"fitting shuffled labels"}
    assert again.numbers == first.numbers


def test_the_command_writes_a_report(cli: Cli, model: Path, data: Path, tmp_path: Path) -> None:
    """From files to a page, with the same object on stdout."""
    out = tmp_path / "report"
    done = cli(
        *("study", "classification", data / "train.tsv", "--test", data / "test.tsv"),
        *("--model", model, "--out", out, "--head", "linear", "--layers", "0,3"),
        *("--answer-tokens", 8, "--json", "--base", model),
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["study"] == "classification"
    assert told["numbers"]["coverage"]["value"] == 0
    assert told["numbers"]["pre-trained, last"] == told["numbers"]["raw, last"]
    assert json.loads((out / "findings.json").read_text(encoding="utf-8")) == told
    assert (out / "bars.svg").exists() and (out / "conditions.csv").exists()


def test_the_command_refuses_before_it_reads(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """A question or a base model that cannot be used costs no time, and leaves no folder."""
    out = tmp_path / "report"
    question = tmp_path / "question.jinja"
    question.write_text("What now?", encoding="utf-8")
    common = "study", "classification", data / "train.tsv", "--model", model, "--out", out
    refused(cli(*common, "--prompt", question), "does not place {{ text }}")
    refused(cli(*common, "--base", "no/such/model"), "no/such/model")
    assert not out.exists()
