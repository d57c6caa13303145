"""``emowatch vectors``, ``steer`` and ``governor``, from labelled text to a steered reply."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaForCausalLM

from emowatch.bank import ProbeBank
from emowatch.labels import EKMAN7
from emowatch.vectors import Vectors
from tests.cli.commands import Cli, refused

SHORT = ("--max-new-tokens", 8)


@pytest.fixture
def seeing(tiny_model: LlamaForCausalLM, tmp_path: Path) -> Path:
    """Give the folder of a bank whose heads see what is added along its directions at layer 1."""
    bank = ProbeBank.random_for(tiny_model, labels=EKMAN7, head="linear", name="seeing")
    directions = bank.tensors["direction"][1:2].expand_as(bank.tensors["direction"]).clone()
    weight = 0.5 * directions.transpose(1, 2).contiguous()
    made = ProbeBank(bank.card, {**bank.tensors, "direction": directions, "weight": weight})
    made.save(tmp_path / "seeing")
    return tmp_path / "seeing"


def messages(folder: Path) -> Path:
    """Write three messages, with an empty line."""
    path = folder / "messages.txt"
    path.write_text("Hello\n\nHow are you?\nTell me more\n", encoding="utf-8")
    return path


def test_vectors_are_built_shown_exchanged_and_used(
    cli: Cli, model: Path, bank: Path, data: Path, tmp_path: Path
) -> None:
    """The whole way of one direction."""
    out = tmp_path / "v.safetensors"
    build = ("vectors", "build", data / "train.tsv", "--model", model, "--out", out)
    done = cli(*build, "--layers", "1,2")
    assert done.code == 0, done.err
    held = Vectors.load(out)
    agreement: list[list[float]] = held.data["agreement"]  # [layers, labels]
    label = held.labels[int(np.sum(agreement, 0).argmax())]  # whose halves agree best
    assert "cosine of the directions of two halves" in done.out
    assert f"--plugin steer:file={out},direction={label}" in done.err
    assert [path.name for path in tmp_path.iterdir()] == [out.name]

    refused(cli(*build), "it is there already", "--overwrite")
    assert cli(*build, "--layers", "2", "--overwrite").code == 0
    held = Vectors.load(out)
    shown = cli("vectors", "show", out)
    assert f"{label}={held.name_of(label, 2)}" in shown.out

    path = tmp_path / "x.gguf"
    done = cli("vectors", "export", out, "--label", label, "--layers", "2", "--out", path)
    assert done.code == 0, done.err
    back = tmp_path / "back.safetensors"
    assert cli("vectors", "import", path, "--label", "mine", "--out", back).code == 0
    np.testing.assert_allclose(
        Vectors.load(back).direction("mine", 2), held.direction(label, 2), atol=1e-6
    )

    run = ("run", "Hello", "--model", model, "--probe", bank, *SHORT)
    trace = tmp_path / "t.jsonl"
    steer = f"steer:file={back},direction=mine,strength=3"
    done = cli(*run, "--plugin", steer, "--record", trace)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    (begun, ended) = [line for line in lines if line["type"] == "steering"]
    assert begun["direction"] == Vectors.load(back).name_of("mine", 2)
    assert (begun["layer"], begun["strength"], ended["ended"]) == (2, 3.0, True)


def test_vectors_that_cannot_be_made_or_used_are_refused(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """Before anything is written."""
    build = ("vectors", "build", data / "train.tsv", "--model", model, "--out")
    refused(cli(*build, tmp_path / "none" / "v.safetensors"), "no such folder")
    refused(cli("vectors", "show", tmp_path / "none"), "Could not read the vectors")
    refused(cli("vectors", "build", tmp_path / "none.tsv", "--out", tmp_path / "v"), "none.tsv")
    assert not list(tmp_path.iterdir())
    out = tmp_path / "v.safetensors"
    assert cli(*build, out, "--layers", "1").code == 0
    export = ("vectors", "export", out, "--out", tmp_path / "x.gguf", "--label")
    refused(cli(*export, "joy", "--layers", "top"), "numbers are needed")
    refused(cli(*export, "joy", "--layers", "2", "--strength", "nan"), "a finite number")
    refused(cli(*export, "bliss", "--layers", "2"), "no label 'bliss'")
    refused(cli(*export, Vectors.load(out).labels[0], "--layers", "1"), "second block")


def test_doses_are_told_beside_a_random_direction(
    cli: Cli, model: Path, bank: Path, tmp_path: Path
) -> None:
    """As a table, and as JSON."""
    flags = ("--model", model, "--probe", bank, "--prompts", messages(tmp_path), *SHORT)
    tune = ("steer", "tune", "joy", *flags, "--layer", "1", "--strengths", "1,3")
    done = cli(*tune)
    assert done.code == 0, done.err
    assert "3 replies a dose" in done.out and "(unsteered)" in done.out
    assert [line.split()[2] for line in done.out.splitlines()[3:]] == ["label", "random"] * 2
    rows = [json.loads(line) for line in cli(*tune, "--json").out.splitlines()]
    assert [(row["along"], row["strength"]) for row in rows] == [
        ("label", 0.0),
        ("label", 1.0),
        ("random", 1.0),
        ("label", 3.0),
        ("random", 3.0),
    ]
    assert rows[0]["change"] == 0


def test_a_governor_is_tuned_tested_and_used(
    cli: Cli, model: Path, seeing: Path, tmp_path: Path
) -> None:
    """From a dose test to a reply."""
    flags = ("--model", model, "--probe", seeing, "--prompts", messages(tmp_path))
    out = tmp_path / "g.json"
    tune = ("governor", "tune", "joy", *flags, "--out", out, "--layer", "1", "--dose", "4", *SHORT)
    done = cli(*tune)
    assert done.code == 0, done.err
    assert "slope" in done.out and "stable up to 5.0 times as much" in done.out
    refused(cli(*tune), "it is there already")

    test = ("governor", "test", out, *flags, "--set-point", "0.3", "--times", "3")
    done = cli(*test, "--max-new-tokens", "36")
    assert done.code == 0, done.err
    ways = ("unsteered", "governor", "proportional only", "governor, random direction")
    for way in (*ways, "governor, gains x 3"):
        assert f"\n{way} " in done.out
    rows = [
        json.loads(line)
        for line in cli(*test, "--max-new-tokens", "36", "--json").out.split("\n")[:-1]
    ]
    assert [row["tokens"] for row in rows] == [5] * 5
    assert {row["aside"] for row in rows} <= set(EKMAN7) - {"joy"}
    unsteered, governed, *_ = rows
    assert unsteered["swing"] == unsteered["aside_change"] == 0.0
    assert 0 < governed["swing"] <= 1.0
    refused(cli(*test, *SHORT), "no reply is longer than the 30 tokens")

    run = ("run", "Hello", "--model", model, "--probe", seeing, *SHORT)
    trace = tmp_path / "t.jsonl"
    done = cli(*run, "--plugin", f"governor:tuning={out},set-point=joy:0.3", "--record", trace)
    assert done.code == 0, done.err
    assert trace.read_text().count('"plugin":"governor"') > 3


def test_what_cannot_be_dosed_or_governed_is_refused(
    cli: Cli, model: Path, bank: Path, tmp_path: Path
) -> None:
    """With what there is instead."""
    flags = ("--model", model, "--probe", bank)
    refused(cli("steer", "tune", "bliss", *flags), "no label 'bliss'; its labels are")
    refused(cli("steer", "tune", "joy", "--model", model), "pass --probe")
    refused(cli("steer", "tune", "joy", *flags, "--layer", "3"), "has directions at the layers")
    refused(cli("steer", "tune", "joy", *flags, "--strengths", "0,1"), "numbers other than 0")
    (tmp_path / "empty.txt").write_text("\n \n")
    refused(cli("steer", "tune", "joy", *flags, "--prompts", tmp_path / "empty.txt"), "no messages")
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe hello")
    refused(cli("steer", "tune", "joy", *flags, "--prompts", tmp_path / "latin.txt"), "not UTF-8")
    refused(cli("governor", "test", tmp_path / "none", "--set-point", "0.3"), "governor tune")


def test_alarms_act_on_the_command_line(cli: Cli, model: Path, bank: Path) -> None:
    """The reply ends, and the line says why."""
    rule = "threshold-alarm:threshold=0.01,consecutive=1,label=joy,action=warn+stop"
    done = cli("run", "Hello", "--model", model, "--probe", bank, "--plugin", rule, "--json")
    assert done.code == 0, done.err
    end = json.loads(done.out.splitlines()[-1])
    (place,) = re.findall(r"emowatch: warning: joy at or above 0.01 .* \(at token (\d+),", done.err)
    assert (end["finish_reason"], end["reply_tokens"]) == ("alarm", int(place) + 1)
