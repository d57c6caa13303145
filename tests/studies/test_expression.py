"""Replies against their messages: a model whose tone is known, and the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import nnls

from emowatch.errors import StudyError, UsageError
from emowatch.labels import EKMAN7
from emowatch.model.loading import LoadedModel
from emowatch.studies.asking import Verdict
from emowatch.studies.expressed import OF_TEXTS
from emowatch.studies.expression import SYSTEM_PROMPTS, study_expression
from emowatch.studies.findings import Cell, Findings
from emowatch.studies.judges import ClassifierJudge
from emowatch.studies.published import TABLE_4
from emowatch.studies.setting import Setting
from emowatch.workshop.metrics import Estimate
from tests.cli.commands import Cli, refused
from tests.cli.conftest import cli, data, model, one_thread
from tests.studies.taught import LABELS, corpus_of, teach, texts_of

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["cli", "data", "model", "one_thread"]

MIRROR = ("zzz zoo zip", "### #1# #2#", "aaa aha ava")
"""For each class a reply in its own words."""


@pytest.fixture
def setting(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Setting:
    """Give a setting of a model that says random bytes."""
    return Setting(
        loaded=LoadedModel(tiny_model, tiny_tokenizer, "tiny"),
        train=corpus_of(*texts_of(24)),
        test=corpus_of(*texts_of(6)),
        work=tmp_path / "work",
    )


def cell(findings: Findings, table: int, row: Sequence[str], column: str) -> Cell:
    """Give one cell of the row that begins with these names."""
    found = findings.tables[table]
    (cells,) = [cells for cells in found.rows if cells[: len(row)] == tuple(row)]
    return cells[found.columns.index(column)]


def test_a_model_that_mirrors_its_messages_is_always_right(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, setting: Setting
) -> None:
    """It was taught to answer each class in its own words, and no system prompt changes that
    for the prompt that it was taught under."""
    loaded = teach(tiny_model, tiny_tokenizer, MIRROR)
    mine = replace(setting, loaded=loaded)
    found = study_expression(mine, ClassifierJudge.fitted(mine), most=24, sample=False)
    accuracy = cell(found, 0, ["none"], "accuracy")
    assert isinstance(accuracy, Estimate) and accuracy.value == 1
    null = cell(found, 0, ["none"], "permuted")
    assert isinstance(null, Estimate) and null.high < accuracy.low
    for label in LABELS:
        recall = cell(found, 1, ["none", label], "recall")
        precision = cell(found, 1, ["none", label], "precision")
        assert isinstance(recall, Estimate) and recall.value == 1
        assert isinstance(precision, Estimate) and precision.value == 1


def test_a_model_that_swaps_two_classes_is_always_wrong_about_them(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, setting: Setting
) -> None:
    """A reply that comforts is a miss, and the change of a prompt is paired."""
    loaded = teach(tiny_model, tiny_tokenizer, (MIRROR[2], MIRROR[1], MIRROR[0]))
    mine = replace(setting, loaded=loaded)
    found = study_expression(mine, ClassifierJudge.fitted(mine), most=24, sample=False)
    recalls = [cell(found, 1, ["none", label], "recall") for label in LABELS]
    assert [isinstance(one, Estimate) and one.value for one in recalls] == [0, 1, 0]
    own = cell(found, 0, [OF_TEXTS], "accuracy")
    assert isinstance(own, Estimate) and own.value == 1
    assert cell(found, 0, ["none"], "change") is None
    changed = cell(found, 0, ["calm"], "change")
    calm, none = (cell(found, 0, [name], "accuracy") for name in ("calm", "none"))
    assert isinstance(changed, Estimate) and isinstance(calm, Estimate)
    assert isinstance(none, Estimate)
    assert changed.value == pytest.approx(calm.value - none.value)


class Silent:
    """A judge that never knows."""

    name, caution = "nobody", "Nobody judged."

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Give no verdict."""
        return [Verdict(None, "unknown label") for _ in texts]


def test_verdicts_that_are_missing_are_counted_by_reason(setting: Setting) -> None:
    """Each prompt says how many of its replies nobody judged, and how many were cut."""
    found = study_expression(setting, Silent(), most=8, messages=6)
    for name in SYSTEM_PROMPTS:
        judged = cell(found, 0, [name], "judged")
        assert isinstance(judged, Estimate) and judged.value == 0
        (told,) = [note for note in found.notes if note.startswith(f"System prompt {name!r}")]
        assert "were not judged: unknown label" in told
    assert found.notes[0] == "Nobody judged."
    assert found.sizes["messages"] == 6 and found.sizes["replies"] == 18


def test_fewer_messages_are_as_many_of_each_label(setting: Setting) -> None:
    """Seven of three labels are two of each."""
    found = study_expression(setting, Silent(), most=4, messages=7)
    assert found.sizes["messages"] == 6


def test_replies_are_limited_to_what_the_context_holds(setting: Setting) -> None:
    """Said in a note with both numbers; messages that do not fit are counted."""
    texts, labels = texts_of(2)
    test = corpus_of([*texts, "z" * 40], [*labels, 0])
    setting.loaded.model.config.max_position_embeddings = 96
    found = study_expression(replace(setting, test=test), Silent(), most=512)
    assert found.settings["longest reply"] == 48
    assert any("at most 48 tokens instead of 512" in note for note in found.notes)
    assert any("1 messages were left out" in note for note in found.notes)
    assert found.sizes["messages"] == 6


def test_no_message_with_room_is_an_error(setting: Setting) -> None:
    """It names what would help."""
    test = corpus_of(["z" * 505] * 2, [0, 1])
    with pytest.raises(StudyError, match="--max-new-tokens"):
        study_expression(replace(setting, test=test), Silent(), most=64)


def test_a_model_without_a_template_is_refused(setting: Setting) -> None:
    """It cannot be told of a system prompt; nor can one whose template knows none."""
    with pytest.raises(UsageError, match="Could not use --no-template"):
        study_expression(replace(setting, template=False), Silent(), most=8)
    for template, why in (
        (None, "no chat template"),
        ("{{ raise_exception('no system') if messages | length > 1 }}", "no system"),
    ):
        setting.loaded.tokenizer.chat_template = template
        with pytest.raises(UsageError, match=why):
            study_expression(setting, Silent(), most=8)
    assert not setting.work.exists()


def test_published_rows_stand_beside_the_papers_models(setting: Setting) -> None:
    """All six rows of both models, by prompt and label."""
    texts = [f"{place} text" for place in range(7)]
    test = corpus_of(texts, range(7), EKMAN7)
    for hub, name in (
        ("Qwen/Qwen3-4B", "Qwen3-4B"),
        ("meta-llama/Llama-3.2-3B-Instruct", "LLaMA3.2-3B"),
    ):
        mine = replace(setting, loaded=replace(setting.loaded, name=hub), test=test)
        found = study_expression(mine, Silent(), most=4)
        for prompt, theirs in TABLE_4[name].items():
            assert cell(found, 0, [prompt], "published accuracy") == theirs.accuracy
            for label in EKMAN7:
                row = [prompt, label]
                assert cell(found, 1, row, "published recall") == theirs.recall[label]
                assert cell(found, 1, row, "published precision") == theirs.precision[label]


def test_the_published_rows_are_of_one_set_of_messages() -> None:
    """Recall over precision is how often a label was judged, for each message of it. All rows
    together leave one mixture of messages, nearly half of them neutral, as the guide says; a
    mistyped figure would leave none."""
    rows, wanted = [[1.0] * 7], [1.0]
    for runs in TABLE_4.values():
        assert set(runs) == set(SYSTEM_PROMPTS)
        for run in runs.values():
            rows.append([run.recall[label] for label in EKMAN7])
            wanted.append(run.accuracy)
            rows.append([run.recall[label] / run.precision[label] for label in EKMAN7])
            wanted.append(1.0)
    shares, _ = nnls(np.array(rows), np.array(wanted))
    assert np.abs(np.array(rows) @ shares - wanted).max() < 0.004
    assert 0.45 <= shares[EKMAN7.index("neutral")] <= 0.47


def test_the_command_writes_a_report(cli: Cli, model: Path, data: Path, tmp_path: Path) -> None:
    """From files to a page; a second run writes no reply again."""
    out = tmp_path / "report"
    command = (
        *("study", "expression", data / "train.tsv", "--test", data / "test.tsv"),
        *("--model", model, "--out", out, "--max-new-tokens", 8, "--messages", 9, "--json"),
    )
    done = cli(*command)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["study"] == "expression"
    assert told["settings"]["judge"] == "text classifier"
    assert told["numbers"]["judge's own accuracy"]["value"] == 1
    assert json.loads((out / "findings.json").read_text(encoding="utf-8")) == told
    assert (out / "recalls.svg").exists() and (out / "labels.csv").exists()
    replies = sorted((out / "work" / "replies").glob("*.jsonl"))
    assert len(replies) == 3
    written = [path.read_bytes() for path in replies]
    again = cli(*command)
    assert again.out == done.out
    assert "writing replies" in done.err and "writing replies" not in again.err
    assert [path.read_bytes() for path in replies] == written


def test_the_command_refuses_a_judge_before_it_reads(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """A slip in its name costs no time, and leaves no folder."""
    out = tmp_path / "report"
    common = "study", "expression", data / "train.tsv", "--model", model, "--out", out
    refused(cli(*common, "--judge", "oracle"), "'oracle'", "bank:NAME")
    refused(cli(*common, "--judge", "bank:demo-tone8"), "demo-tone7")
    assert not out.exists()
