"""``emowatch calibrate``, and what other commands then say of the bank."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from emowatch.bank import load_bank
from emowatch.trace import Trace
from tests.cli.commands import PROMPT, Cli, objects, refused
from tests.workshop.synthetic import write_texts


@pytest.fixture
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give texts that the bank has not seen, enough for thresholds."""
    path = tmp_path_factory.getbasetemp() / "dev.tsv"
    return path if path.exists() else write_texts(path, 60, seed=5)


@pytest.fixture
def sure(
    cli: Cli, model: Path, bank: Path, dev: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give the folder of a calibrated copy of the bank, made once for all tests."""
    folder = tmp_path_factory.getbasetemp() / "sure"
    if not folder.exists():
        done = cli("calibrate", bank, dev, "--model", model, "--out", folder)
        assert done.code == 0, done.err
        (line,) = done.out.splitlines()
        assert line.startswith("from offset 0: labels of ")
        assert "groups, of its own)" in line
        assert f"Next: emowatch evaluate {folder}" in done.err
    return folder


def test_a_copy_has_sets_and_all_that_the_bank_has(bank: Path, sure: Path) -> None:
    """The bank itself stays as it was; the floors of an evaluation travel with the copy."""
    assert load_bank(bank).card.uncertainty is None
    made = load_bank(sure)
    assert made.card.can_abstain
    assert (sure / "shuffled/probe.safetensors").exists()
    assert (sure / "run.json").exists()
    assert "| label sets | 90%; " in (sure / "README.md").read_text(encoding="utf-8")


def test_temperatures_are_told_where_they_are_fitted_anew(
    cli: Cli, model: Path, bank: Path, dev: Path, tmp_path: Path
) -> None:
    """What they were, and what they are."""
    out = tmp_path / "anew"
    done = cli("calibrate", bank, dev, "--model", model, "--out", out, "--temperatures")
    assert done.code == 0, done.err
    first, second = done.out.splitlines()
    assert re.fullmatch(r"from offset 0: temperature \d+\.\d\d, now \d+\.\d\d", first)
    assert second.startswith("from offset 0: labels of ")


def test_a_bank_that_is_pointed_at_is_calibrated_in_its_place(
    cli: Cli, model: Path, bank: Path, dev: Path, tmp_path: Path
) -> None:
    """At another level where asked."""
    mine = shutil.copytree(bank, tmp_path / "mine")
    done = cli("calibrate", mine, dev, "--model", model, "--level", 0.8)
    assert done.code == 0, done.err
    uncertainty = load_bank(mine).card.uncertainty
    assert uncertainty is not None
    assert uncertainty.level == 0.8


def test_a_bank_that_shall_not_abstain_has_sets_alone(
    cli: Cli, model: Path, bank: Path, dev: Path, tmp_path: Path
) -> None:
    """Where a distance tells nothing, abstaining costs one state in twenty for nothing."""
    out = tmp_path / "sets"
    done = cli("calibrate", bank, dev, "--model", model, "--out", out, "--no-abstain")
    assert done.code == 0, done.err
    made = load_bank(out).card
    assert made.label_sets is not None and not made.can_abstain
    assert "(180 groups, of its own)" in done.out


def test_a_shipped_bank_is_not_changed_by_its_name(cli: Cli, dev: Path) -> None:
    """It is the project's."""
    refused(cli("calibrate", "demo-tone7", dev), "'demo-tone7' in its place", "--out")


def test_a_folder_that_holds_a_bank_is_not_written_over(
    cli: Cli, model: Path, bank: Path, sure: Path, dev: Path, tmp_path: Path
) -> None:
    """Unless asked."""
    refused(cli("calibrate", bank, dev, "--out", sure), "holds a bank", "--overwrite")
    other = shutil.copytree(bank, tmp_path / "other")
    done = cli("calibrate", sure, dev, "--model", model, "--out", other, "--overwrite")
    assert done.code == 0, done.err
    assert load_bank(other).card.can_abstain


def test_too_few_texts_leave_the_bank_alone(
    cli: Cli, model: Path, bank: Path, data: Path, tmp_path: Path
) -> None:
    """The error says how many are needed."""
    out = tmp_path / "new"
    done = cli("calibrate", bank, data / "test.tsv", "--model", model, "--out", out)
    refused(done, "30 groups of texts: 143 are needed", code=1)
    assert not out.exists()


def test_the_training_data_are_refused(
    cli: Cli, model: Path, bank: Path, data: Path, tmp_path: Path
) -> None:
    """Sets of them would promise too much."""
    done = cli("calibrate", bank, data / "train.tsv", "--model", model, "--out", tmp_path / "new")
    refused(done, "the file the bank was trained on", "Name texts")


def test_evaluate_tells_coverage_size_and_abstention(
    cli: Cli, model: Path, sure: Path, tmp_path: Path
) -> None:
    """In the table and in the JSON object."""
    test = write_texts(tmp_path / "test.tsv", 40, seed=9)
    (found,) = objects(cli("evaluate", sure, test, "--model", model, "--json"))
    sets = found["sets"]
    low, high = sets["coverage_interval"]
    assert low <= sets["coverage"] <= high
    assert sets["level"] == 0.9
    assert sets["chance_size"] == pytest.approx(2.7)
    assert [one["kind"] for one in sets["detection"]] == ["code", "tool calls", "other languages"]
    done = cli("evaluate", sure, test, "--model", model)
    assert f"label sets, promised 90%: {sets['coverage']:.3f} [{low:.3f}, {high:.3f}]" in done.out
    assert "  tool calls " in done.out
    assert max(map(len, done.out.splitlines()[1:-1])) <= 80  # the first names the file


def test_run_tells_the_set_of_each_token_and_where_the_bank_abstains(
    cli: Cli, model: Path, sure: Path, bank: Path
) -> None:
    """The mean of scores that say nothing must not stand there alone."""
    flags = "--model", model, "--max-new-tokens", 4
    *tokens, _ = objects(cli("run", PROMPT, *flags, "--probe", sure, "--json"))
    for token in tokens:
        told = token["uncertainty"]["mood"]
        assert isinstance(told["distance"], float)
        assert told["abstains"] == (told["distance"] > 1)
    # The bank was trained on means of prompts: only offset 0 was calibrated.
    assert tokens[0]["uncertainty"]["mood"]["label_set"]
    assert tokens[1]["uncertainty"]["mood"]["label_set"] is None
    done = cli("run", PROMPT, *flags, "--probe", sure)
    assert "abstained at" in done.out.splitlines()[-1]
    done = cli("run", PROMPT, *flags, "--probe", bank, "--json")
    nothing = {"label_set": None, "distance": None, "abstains": None}
    assert objects(done)[0]["uncertainty"] == {"mood": nothing}


def test_a_record_tells_the_same_without_the_model(
    cli: Cli, model: Path, sure: Path, tmp_path: Path
) -> None:
    """And a replay shows it line by line."""
    record = tmp_path / "t.jsonl"
    flags = "--model", model, "--probe", sure, "--max-new-tokens", 4, "--no-doctor"
    *tokens, _ = objects(cli("run", PROMPT, *flags, "--json", "--record", record))
    reply = Trace.load(record).reply()
    told = [token["uncertainty"]["mood"] for token in tokens]
    assert [list(score.label_set) or None for score in reply] == [one["label_set"] for one in told]
    assert [score.abstains for score in reply] == [one["abstains"] for one in told]
    shown = cli("replay", record).out
    assert shown.count("(abstains)") == sum(score.abstains for score in reply)
    assert json.loads(record.read_text().splitlines()[0])["banks"][0]["can_abstain"] is True
