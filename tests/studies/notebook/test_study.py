"""The whole study on the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from emowatch.errors import StudyError
from emowatch.model.loading import LoadedModel
from emowatch.studies.folder import write_findings
from emowatch.studies.notebook.accounts import Accounts
from emowatch.studies.notebook.study import NotebookOptions, Part, study_notebook
from emowatch.studies.rendering import render_findings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TABLES = (
    "curve",
    "positions",
    "appraisals",
    "appraisal-layers",
    "appraisals-to-emotion",
    "knock-out",
    "patching",
    "promotion",
    "promoted",
    "surgery",
)


def test_the_study_runs_from_a_file_to_a_page(
    accounts: Accounts, loaded: LoadedModel, tmp_path: Path
) -> None:
    """Everything once; the second time from what is kept, with the same figures."""
    options = NotebookOptions(work=tmp_path / "work", pairs=12)
    findings = study_notebook(accounts, loaded, options)
    assert tuple(table.name for table in findings.tables) == TABLES
    assert findings.sizes["training texts"] == 48
    assert findings.sizes["test texts"] == 12
    told = render_findings(findings)
    # With single bytes for tokens every answer begins with a space.
    assert "label words begin with the same token" in told
    assert "chosen with hindsight" in told
    write_findings(findings, tmp_path / "out")
    assert (tmp_path / "out" / "index.html").exists()
    again = study_notebook(accounts, loaded, options)
    assert render_findings(again) == told


def test_a_model_of_one_block_is_not_pushed(
    accounts: Accounts, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Behind its only block nothing is left that could answer differently."""
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    small = LoadedModel(LlamaForCausalLM(config).train(False), tiny_tokenizer, "small")
    with pytest.raises(StudyError, match="it has one block"):
        study_notebook(accounts, small, NotebookOptions(work=tmp_path))
    assert not list(tmp_path.glob("states*"))
    probes = NotebookOptions(work=tmp_path, parts=("probes", "appraisals"))
    assert len(study_notebook(accounts, small, probes).tables) == 5


def test_parts_that_are_not_asked_for_are_left_out(
    accounts: Accounts, loaded: LoadedModel, tmp_path: Path
) -> None:
    """Probes of some layers need no model that is pushed."""
    probes: tuple[Part, ...] = ("probes",)
    options = NotebookOptions(work=tmp_path / "work", parts=probes, layers="0,2")
    findings = study_notebook(accounts, loaded, options)
    assert tuple(table.name for table in findings.tables) == TABLES[:2]
    assert findings.tables[0].column("layer") == [0, 2]
    assert not list((tmp_path / "work").glob("interventions-*"))
