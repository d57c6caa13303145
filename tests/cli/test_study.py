"""Studies from the command line, on a tiny model that lies in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emowatch.studies.folder import FINDINGS, PAGE
from tests.cli.commands import Cli, objects, refused

SMALL = "--no-control", "--head", "linear"


def test_a_study_prints_its_table_and_leaves_a_page(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """stdout is the table; counts and the page's place are narration."""
    out = tmp_path / "layers"
    texts = data / "train.tsv", "--test", data / "test.tsv"
    done = cli("study", "layers", *texts, "--model", model, "--out", out, *SMALL)
    assert done.code == 0, done.err
    assert "Balanced accuracy by layer" in done.out
    assert "Chance 0.333; TF-IDF" in done.out
    assert "30 texts to measure on, classes of equal size" in done.err
    assert f"wrote {out / PAGE}" in done.err
    assert (out / FINDINGS).exists() and (out / "curve.png").exists()


def test_a_study_as_json_is_the_object_that_the_folder_holds(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """For those who compare runs."""
    out = tmp_path / "geometry"
    texts = data / "train.tsv", "--test", data / "test.tsv"
    command = "study", "geometry", *texts, "--model", model, "--out", out, "--head", "linear"
    done = cli(*command, "--json")
    assert done.code == 0, done.err
    assert objects(done) == [json.loads((out / FINDINGS).read_text(encoding="utf-8"))]


def test_all_studies_are_estimated_run_and_not_run_again(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """One command; a second call has nothing to do."""
    out = tmp_path / "studies"
    texts = data / "train.tsv", "--test", data / "test.tsv"
    command = ("study", "all", *texts, "--model", model, "--out", out, "--head", "linear")
    only = "--only", "geometry"
    planned = cli(*command, *only, "--dry-run")
    assert planned.code == 0 and planned.out == ""
    assert "geometry: about" in planned.err and "in all about" in planned.err
    assert not (out / "geometry").exists()
    first = cli(*command, *only)
    assert first.code == 0, first.err
    assert first.out.startswith("geometry: done in")
    second = cli(*command, *only)
    assert (second.code, second.out) == (0, "geometry: done before\n")
    assert (out / PAGE).exists()


def test_a_study_that_is_refused_in_a_plan_makes_the_command_fail(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """The others are done, and its reason is told."""
    out = tmp_path / "studies"
    texts = data / "train.tsv", "--test", data / "test.tsv"
    few = "--layers", "0", "--head", "linear"  # at layer 0 there is nothing to lay out
    done = cli("study", "all", *texts, "--model", model, "--out", out, *few, "--only", "geometry")
    assert done.code == 1
    assert done.out.startswith("geometry: Could not lay the texts out")
    assert "geometry: not done." in (out / PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize("study", ["layers", "geometry", "persistence", "all"])
def test_data_that_is_not_there_is_refused_before_the_model_is_loaded(
    study: str, cli: Cli, tmp_path: Path
) -> None:
    """Nothing is left behind."""
    out = tmp_path / "out"
    refused(cli("study", study, tmp_path / "no.tsv", "--out", out), "no.tsv")
    assert not out.exists()


def test_a_finished_study_of_something_else_is_replaced_only_where_asked(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """The same command again is no harm."""
    out = tmp_path / "layers"
    texts = data / "train.tsv", "--test", data / "test.tsv"
    command = ("study", "layers", *texts, "--model", model, "--out", out, *SMALL, "--layers")
    assert cli(*command, "0,1").code == 0
    before = (out / FINDINGS).read_bytes()
    assert cli(*command, "0,1").code == 0
    refused(cli(*command, "0,2"), "a finished study with another layers", "--overwrite")
    assert (out / FINDINGS).read_bytes() == before
    assert cli(*command, "0,2", "--overwrite").code == 0
    (out / FINDINGS).write_text("{", encoding="utf-8")
    refused(cli(*command, "0,2"), "another contents")


def test_layers_that_the_model_has_not_are_refused_before_a_study_begins(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """Not once for each study, after minutes."""
    out = tmp_path / "out"
    texts = data / "train.tsv", "--test", data / "test.tsv"
    done = cli("study", "all", *texts, "--layers", "99", "--model", model, "--out", out)
    refused(done, "99")
    assert not out.exists()


def test_texts_of_the_notebook_that_are_not_there_are_refused_at_once(
    cli: Cli, data: Path, tmp_path: Path
) -> None:
    """Not after the other studies have run."""
    out = tmp_path / "out"
    command = "study", "all", data / "train.tsv", "--out", out, "--envent", tmp_path / "no.csv"
    refused(cli(*command), "no.csv")
    assert not out.exists()


def test_rows_of_a_test_set_that_cannot_be_read_are_told(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """On stderr, and in the report: figures of what is left are figures of less."""
    lines = (data / "test.tsv").read_bytes().splitlines(keepends=True)
    (tmp_path / "half.tsv").write_bytes(b"".join([*lines, b"caf\xe9 is closed\tjoy\n"]))
    out = tmp_path / "out"
    texts = data / "train.tsv", "--test", tmp_path / "half.tsv"
    done = cli("study", "layers", *texts, "--model", model, "--out", out, *SMALL)
    assert done.code == 0, done.err
    assert "half.tsv: 1 row put aside: undecodable bytes" in done.err
    assert "--encoding latin-1" in done.err
    settings = json.loads((out / FINDINGS).read_text(encoding="utf-8"))["settings"]
    assert settings["test rows put aside"] == {"undecodable bytes": 1}
    assert settings["dtype"] == "float32"
    assert "The law of layer 0 was checked" in done.out


def test_a_test_set_in_another_encoding_is_refused_in_words(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """No text of it can be read; the message says what was found."""
    rows = ["text\tlabel", *(f"caf\xe9 {n}\tjoy" for n in range(12))]
    (tmp_path / "latin.tsv").write_bytes("\n".join(rows).encode("latin-1"))
    done = cli(
        "study", "layers", data / "train.tsv", "--test", tmp_path / "latin.tsv", "--model", model
    )
    refused(done, "latin.tsv", "undecodable bytes")
