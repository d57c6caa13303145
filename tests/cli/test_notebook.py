"""``emowatch study notebook``: what it prints and writes, and what it refuses before it begins."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import Cli, refused
from tests.studies.notebook.accounts_made import write_envent


def test_the_study_prints_json_and_writes_a_page(cli: Cli, model: Path, tmp_path: Path) -> None:
    """stdout is one object; what was read and left out is told on stderr."""
    data, out = write_envent(tmp_path / "e.csv"), tmp_path / "out"
    arguments = ("--model", model, "--out", out, "--parts", "probes,appraisals")
    done = cli("study", "notebook", data, *arguments, "--layers", "0,3", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["study"] == "notebook"
    assert set(found["tables"]) >= {"curve", "positions", "appraisals"}
    assert "60 texts: fear 20, joy 20, relief 20" in done.err
    assert (out / "index.html").exists() and (out / "curve.csv").exists()
    again = cli("study", "notebook", data, *arguments, "--layers", "0,3", "--seed", 1)
    refused(again, "a finished study with another seed", "--overwrite")


def test_what_cannot_be_used_is_refused_before_anything_is_written(
    cli: Cli, tmp_path: Path
) -> None:
    """With one sentence that says what to do."""
    data, out = write_envent(tmp_path / "e.csv"), tmp_path / "out"
    study = ("study", "notebook", data, "--out", out)
    refused(cli(*study, "--parts", "probes,all"), "probes, appraisals, interventions")
    refused(cli(*study, "--layers", "0,3"), "interventions need the probes of all layers")
    refused(cli(*study, "--limit", "12"), "Raise --limit, which is 12")
    refused(cli(*study, "--encoding", "utf-7x"), "no text encoding")
    refused(cli("study", "notebook", tmp_path / "f.csv", "--out", out), "no such file", "e.csv")
    assert not out.exists()
