"""The doctor's certificate in what is recorded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emowatch.doctor.checks import CHECKS
from emowatch.trace import Trace
from tests.cli.commands import PROMPT, Cli, objects, refused


@pytest.fixture
def damaged(model: Path, tmp_path: Path) -> Path:
    """Give the tiny model with a NaN in the embedding of a byte that no UTF-8 text has."""
    folder = tmp_path / "damaged"
    shutil.copytree(model, folder)
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][-1] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def test_a_record_holds_what_the_doctor_says(
    cli: Cli, model: Path, bank: Path, tmp_path: Path
) -> None:
    """The same certificate as `emowatch doctor --json`, and the reply is that without it."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 4, "--json"
    path = tmp_path / "trace.jsonl"
    done = cli("run", PROMPT, *flags, "--sample", "--record", path)
    assert done.code == 0, done.err
    assert done.err.splitlines()[0] == (
        f"examining tiny (--no-doctor leaves it out) … {len(CHECKS)} of {len(CHECKS)} checks passed"
    )
    (certificate,) = objects(cli("doctor", model, "--json"))
    assert certificate["passed"] is True
    assert Trace.load(path).session.certificate == certificate
    assert cli("run", PROMPT, *flags, "--sample").out == done.out


def test_a_trace_that_a_plugin_writes_holds_it_too(
    cli: Cli, model: Path, bank: Path, tmp_path: Path
) -> None:
    """`--record` stands for that plugin."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2
    path = tmp_path / "trace.jsonl"
    done = cli("run", PROMPT, *flags, "--plugin", f"jsonl-log:path={path}")
    assert "checks passed" in done.err
    assert Trace.load(path).session.certificate["passed"] is True


def test_the_model_is_examined_only_where_it_is_of_use_or_asked_for(
    cli: Cli, model: Path, bank: Path, tmp_path: Path
) -> None:
    """It takes many seconds on a large model."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2
    assert "examining" not in cli("run", PROMPT, *flags).err
    assert "examining" in cli("run", PROMPT, *flags, "--doctor").err
    path = tmp_path / "trace.jsonl"
    assert "examining" not in cli("run", PROMPT, *flags, "--record", path, "--no-doctor").err
    assert Trace.load(path).session.certificate == {}


def test_a_chat_that_is_recorded_holds_it(
    cli: Cli, model: Path, bank: Path, tmp_path: Path
) -> None:
    """One session, one certificate."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2
    path = tmp_path / "trace.jsonl"
    done = cli("chat", *flags, "--record", path, stdin=b"Hello\nAnd you?\n")
    assert done.code == 0, done.err
    assert done.err.count("examining") == 1
    trace = Trace.load(path)
    assert len(trace.turns) == 2
    assert len(trace.session.certificate["checks"]) == len(CHECKS)


def test_a_check_that_fails_is_said_and_recorded_and_stops_nothing(
    cli: Cli, damaged: Path, bank: Path, tmp_path: Path
) -> None:
    """Each failure is a line with what was found and what that means."""
    flags = "--model", damaged, "--probe", bank, "--max-new-tokens", 2
    path = tmp_path / "trace.jsonl"
    done = cli("run", PROMPT, *flags, "--record", path)
    assert done.code == 0, done.err
    assert "emowatch: The check 'finite weights' failed: model.embed_tokens.weight" in done.err
    assert "The file or its conversion is damaged." in done.err
    trace = Trace.load(path)
    assert trace.complete and trace.session.certificate["passed"] is False
    found = {c["name"]: c["passed"] for c in trace.session.certificate["checks"]}
    assert found["finite weights"] is False


def test_under_strict_a_check_that_fails_refuses_the_model(
    cli: Cli, damaged: Path, bank: Path, tmp_path: Path
) -> None:
    """As `emowatch doctor` would, before a word is spoken."""
    flags = "--model", damaged, "--probe", bank, "--record", tmp_path / "t.jsonl", "--strict"
    for command in (("run", PROMPT), ("chat",)):
        done = cli(*command, *flags, stdin=b"Hello\n")
        refused(done, "'damaged' under --strict", "finite weights", "emowatch doctor")
