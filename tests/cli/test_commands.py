"""The commands, from arguments to exit codes, on a tiny model that lies in a folder.

These tests call `main` in this process, which is what the console script calls; signals and
pipes need a process of their own: see `test_pipes`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
import pytest

from emowatch.cli.root import COMMANDS, make_cli
from emowatch.plugins import DEFAULT_PLUGINS
from emowatch.trace import Trace
from tests.cli.commands import FLAGS, PROMPT, Cli, objects, refused
from tests.workshop.synthetic import WORDS, write_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from emowatch.tui.source import ModelSource
    from tests.conftest import Site


ALARM = "threshold-alarm:threshold=0.01,consecutive=1"


# The main path


def test_training_writes_a_bank_and_says_where(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """stdout has the one line that a script wants; counts and the next step are narration."""
    out = tmp_path / "new"
    done = cli("train", data / "train.tsv", "--model", model, "--out", out, *FLAGS)
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    assert line.startswith(f"{out / 'probe.safetensors'}: primary layer ")
    assert "(chance 0.333)" in line
    assert "72 examples: joy 24, neutral 24, sadness 24" in done.err
    assert f"Next: emowatch evaluate {out}" in done.err
    assert not (out / "work").exists()


def test_evaluate_gives_every_figure_with_its_floors_and_intervals(
    cli: Cli, model: Path, data: Path, bank: Path
) -> None:
    """These names are what scripts and studies read."""
    done = cli("evaluate", bank, data / "test.tsv", "--model", model, "--json")
    assert done.code == 0, done.err
    (found,) = objects(done)
    assert [row["layer"] for row in found["layers"]] == [0, 1, 2, 3]
    for place in (found, *found["layers"]):
        for name in ("balanced_accuracy", "macro_f1", "ece", "tfidf_balanced_accuracy"):
            low, high = place[f"{name}_interval"]
            assert low <= place[name] <= high
        assert place["chance"] == pytest.approx(1 / 3)
        assert place["n"] == 30
        assert 0 <= place["shuffled_balanced_accuracy"] <= 1
    primary = next(row for row in found["layers"] if row["layer"] == found["primary"])
    assert found["balanced_accuracy"] == primary["balanced_accuracy"] > 0.7


def test_a_bank_is_replaced_only_where_asked(cli: Cli, model: Path, data: Path, bank: Path) -> None:
    """Its heads and figures may have taken hours, and the default folder is always the same."""
    before = (bank / "probe.safetensors").read_bytes()
    refused(
        cli("train", data / "train.tsv", "--model", model, "--out", bank, *FLAGS),
        "holds a bank",
        "--overwrite",
    )
    assert (bank / "probe.safetensors").read_bytes() == before


def test_figures_are_saved_only_into_a_bank_that_was_pointed_at(cli: Cli, data: Path) -> None:
    """The cards of shipped banks are the project's, and would be lost without a word."""
    done = cli("evaluate", "demo-tone7", data / "test.tsv", "--save")
    refused(done, "Could not save the figures of 'demo-tone7'", "Copy ", "name that")


def test_a_width_for_heads_without_a_hidden_layer_is_refused(
    cli: Cli, data: Path, tmp_path: Path
) -> None:
    """It would be ignored in silence."""
    flags = "--head", "linear", "--hidden", 5, "--out", tmp_path / "new"
    refused(cli("train", data / "train.tsv", *flags), "--hidden 5", "linear heads")


def test_evaluate_can_save_and_draw_its_figures(
    cli: Cli, model: Path, data: Path, bank: Path, tmp_path: Path
) -> None:
    """The card then tells them to whoever gets the bank."""
    mine = shutil.copytree(bank, tmp_path / "mine")
    plots = tmp_path / "plots"
    done = cli("evaluate", mine, data / "test.tsv", "--model", model, "--save", "--plot", plots)
    assert done.code == 0, done.err
    assert "balanced accuracy" in done.out
    assert sorted(path.name for path in plots.iterdir()) == ["confusion.svg", "layers.svg"]
    shown = cli("probes", "show", mine)
    assert f"## Figures on {data / 'test.tsv'} (n = 30" in shown.out


def test_probes_show_prints_the_card(cli: Cli, bank: Path) -> None:
    """As text for people, as JSON for programs."""
    done = cli("probes", "show", bank)
    assert done.code == 0
    assert "# mood" in done.out
    card = json.loads(cli("probes", "show", bank, "--json").out)
    assert (card["name"], card["labels"]) == ("mood", list(WORDS))


def test_a_broken_bank_hides_no_other(
    cli: Cli, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing is how one finds out which it is."""
    shutil.copytree(bank, tmp_path / "whole")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "probe.safetensors").write_bytes(b"not much")
    monkeypatch.setattr("emowatch.bank.library.shipped_folder", lambda: tmp_path)
    done = cli("probes", "--json")
    assert done.code == 0
    assert [row["name"] for row in json.loads(done.out)] == ["whole"]
    assert "broken" in done.err
    assert cli("probes").out.startswith("whole ")


def test_run_gives_a_line_for_each_token_and_one_for_the_turn(
    cli: Cli, model: Path, bank: Path
) -> None:
    """Every line parses by itself, so that a reader may follow while the model speaks."""
    done = cli("run", PROMPT, "--model", model, "--probe", bank, "--json", "--max-new-tokens", 12)
    assert done.code == 0, done.err
    *tokens, turn = objects(done)
    assert turn["type"] == "turn"
    assert len(tokens) == turn["reply_tokens"] > 3
    assert [token["offset"] for token in tokens] == list(range(len(tokens)))
    for token in tokens:
        assert token["type"] == "token"
        assert set(token["scores"]) == set(WORDS)
        assert sum(token["scores"].values()) == pytest.approx(1, abs=1e-3)
        assert token["banks"]["mood"] == token["scores"]
        assert token["dominant"] == max(token["scores"], key=token["scores"].get)
    said = "".join(token["text"] for token in tokens)
    assert turn["text"].removesuffix("\ufffd") == said  # cut off inside a character
    mean = sum(token["scores"]["joy"] for token in tokens) / len(tokens)
    assert turn["mean_scores"]["mood"]["joy"] == pytest.approx(mean, abs=1e-3)


def test_run_reads_standard_input_whatever_its_bytes(cli: Cli, model: Path, bank: Path) -> None:
    """Pipes carry anything; undecodable bytes are shown to the model as such."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2
    done = cli("run", "-", *flags, stdin=b"caf\xe9 noir")
    assert done.code == 0, done.err
    assert cli("run", "caf\udce9 noir", *flags).out == done.out


def test_plain_output_is_the_reply_and_a_line_for_each_bank(
    cli: Cli, model: Path, bank: Path
) -> None:
    """What `--json` has in full, for somebody at a terminal."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 3
    done = cli("run", PROMPT, *flags)
    assert done.out.splitlines()[-1].startswith("user's message, as the model reads it (mood): ")
    assert "3 tokens · length" in done.err


def test_an_alarm_makes_the_command_fail_where_asked(cli: Cli, model: Path, bank: Path) -> None:
    """Exit code 4 stops a deployment script; without the flag an alarm is only told."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 4, "--plugin", ALARM
    done = cli("run", PROMPT, *flags, "--json", "--fail-on-alarm")
    assert done.code == 4
    assert "alarm (warning) at offset" in done.err
    assert objects(done)[-1]["alarms"]
    assert cli("run", PROMPT, *flags).code == 0
    quiet = (*flags[:-1], "threshold-alarm:threshold=0.999999,consecutive=4")
    assert cli("run", PROMPT, *quiet, "--fail-on-alarm").code == 0


def test_a_record_can_be_opened_again(cli: Cli, model: Path, bank: Path, tmp_path: Path) -> None:
    """It is what replays and reports are made from; no text is in it unless asked for."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 5, "--json"
    path = tmp_path / "trace.jsonl"
    done = cli("run", PROMPT, *flags, "--record", path, "--content", "full")
    assert done.code == 0, done.err
    *tokens, turn = objects(done)
    trace = Trace.load(path)
    assert trace.turns[0].text == turn["text"]
    kept = [s for s in trace.tokens if s.offset is not None]
    assert [s.scores["joy"] for s in kept] == pytest.approx(
        [token["scores"]["joy"] for token in tokens], abs=1e-4
    )
    bare = tmp_path / "bare.jsonl"
    cli("run", PROMPT, *flags, "--record", bare)
    assert Trace.load(bare).turns[0].text != turn["text"]
    assert PROMPT not in bare.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["run", "chat"])
def test_the_seed_asked_for_is_on_record(
    command: str, cli: Cli, model: Path, bank: Path, tmp_path: Path
) -> None:
    """Each turn of a chat has a seed of its own, and is sampled with it."""
    path = tmp_path / "t.jsonl"
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 3, "--no-doctor"
    arguments = [PROMPT] if command == "run" else []
    sampled = *flags, "--sample", "--seed", 5, "--record", path
    done = cli(command, *arguments, *sampled, stdin=b"hello\nagain\n")
    assert done.code == 0, done.err
    trace = Trace.load(path)
    assert trace.session.seed == 5
    wanted = [5] if command == "run" else [5, 6]
    assert [turn.settings["seed"] for turn in trace.turns] == wanted


BROKEN = """
from emowatch import hookimpl

class Broken:
    @hookimpl
    def {hook}(self):
        raise RuntimeError("broken")
"""


@pytest.mark.parametrize("hook", ["token_scored", "session_finished"])
@pytest.mark.parametrize("command", ["run", "chat", "screen"])
def test_a_plugin_that_failed_makes_the_command_fail(
    command: str,
    hook: str,
    cli: Cli,
    model: Path,
    bank: Path,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reply is given all the same; a script must know that the monitor was off."""
    site.install("broken", BROKEN.format(hook=hook), attribute="Broken")
    monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", "broken")
    if command == "screen":
        terminal = SimpleNamespace(isatty=lambda: True)
        streams = SimpleNamespace(stdin=terminal, stdout=terminal, stderr=terminal)
        monkeypatch.setattr("emowatch.cli.chat.sys", streams)
        monkeypatch.setattr("emowatch.tui.run_chat", say_hello)
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2, "--plugin", "broken"
    arguments = ["run", PROMPT] if command == "run" else ["chat"]
    done = cli(*arguments, *flags, stdin=b"hello\n")
    assert done.code == 1
    assert done.err.count(f"it failed in {hook}: RuntimeError: broken") == 1


QUEUED = """
from emowatch import hookimpl


class Queued:
    queued = True

    @hookimpl
    def {hook}(self):
        {body}
"""


@pytest.mark.parametrize("command", ["run", "chat"])
def test_what_waits_in_queues_is_delivered_and_counted_before_the_command_ends(
    command: str, cli: Cli, model: Path, bank: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last turn is what a log wants most, and the exit status must know how it went."""
    monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", "slow,broken")
    slow = QUEUED.format(hook="turn_finished", body="import time; time.sleep(0.2)")
    site.install("slow", slow, attribute="Queued")
    broken = QUEUED.format(hook="turn_finished", body="raise OSError('gone')")
    site.install("broken", broken, attribute="Queued")
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2
    arguments = ["run", PROMPT] if command == "run" else ["chat"]
    done = cli(*arguments, *flags, "--plugin", "slow", stdin=b"hello\n")
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1] == "slow: 1 call queued, 1 delivered"
    done = cli(*arguments, *flags, "--plugin", "broken", stdin=b"hello\n")
    assert done.code == 1
    assert "it failed in turn_finished: OSError: gone" in done.err
    assert done.err.splitlines()[-1] == "broken: 1 call queued, 0 delivered, 1 dropped"


def say_hello(source: ModelSource, notes: object) -> int:
    """Do what a short chat on the screen does."""
    list(source.reply([{"role": "user", "content": "hello"}]))
    return 0


def test_a_piped_chat_goes_on_past_the_context(cli: Cli, model: Path, bank: Path) -> None:
    """Each line is answered; the context of 512 holds no three of them."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2
    done = cli("chat", *flags, stdin=b"\n".join([b"a" * 200] * 4))
    assert done.code == 0, done.err
    assert done.out.count("(mood): ") == 4
    assert done.err.count("outgrew the model's context; its beginning is forgotten.\n") == 1
    done = cli("chat", *flags, stdin=b"short\n" + b"a" * 600)
    assert (done.code, done.out.count("(mood): ")) == (2, 1)
    assert "this model's context is 512" in done.err
    assert "forgotten" not in done.err


def test_default_banks_are_read_where_they_were_trained(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said on stderr of the shipped banks, but for the one of prompts alone."""
    monkeypatch.setattr("emowatch.watching.cautions._told", set())
    flags = "--max-new-tokens", 2
    for done in (cli("run", PROMPT, *flags), cli("chat", *flags, stdin=b"hello")):
        assert done.code == 0, done.err
        assert "emowatch:" not in done.err
    done = cli("run", PROMPT, *flags, "--probe", "demo-ekman7-prompt")
    assert done.err.splitlines()[0] == (
        "emowatch: the bank demo-ekman7-prompt was trained at the last prompt token only. Its "
        "scores at later tokens are extrapolated: nobody has measured how good they are. To follow "
        "a reply token by token, use a bank that was trained with --readout reply."
    )


def test_a_prompt_that_stdin_lacks_is_asked_for(cli: Cli) -> None:
    """It was the pipe that was empty, and no message that somebody wrote."""
    for stdin in (b"", b" \n"):
        refused(cli("run", "-", stdin=stdin), "no prompt on stdin", "pipe a text in")


def test_extract_needs_a_folder(cli: Cli, data: Path) -> None:
    """States are large: no place is chosen for them."""
    refused(cli("extract", data / "test.tsv"), "Missing option '--out'")


def test_extract_writes_shards_with_what_each_row_is(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """States are of no use without their labels, and running again costs nothing."""
    from emowatch.workshop.activations import Activations

    out = tmp_path / "states"
    flags = "--model", model, "--layers", "0,50%,3", "--out", out, "--limit", 10
    done = cli("extract", data / "test.tsv", *flags)
    assert done.code == 0, done.err
    assert done.out == f"{out}: 10 states of 32 numbers at layers 0, 2, 3\n"
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    texts = (data / "test.tsv").read_text(encoding="utf-8").splitlines()
    assert all(texts[row["row"] - 1].endswith(f"\t{row['label']}") for row in rows)
    assert len(Activations(out)) == len(rows) == 10
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert cli("extract", data / "test.tsv", *flags).code == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    refused(cli("extract", data / "train.tsv", *flags), "holds the states of other texts", code=1)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_doctor_gives_a_certificate(cli: Cli, model: Path) -> None:
    """As a table and as JSON; a healthy model is exit code 0."""
    done = cli("doctor", model, "--json")
    assert done.code == 0, done.err
    (certificate,) = objects(done)
    assert certificate["passed"] is True
    assert certificate["checks"]
    assert "checks passed" in cli("doctor", model).out


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    """The list is written out so that `--help` imports no command."""
    command = make_cli().get_command(click.Context(make_cli()), name)
    assert command is not None and command.help is not None
    assert COMMANDS[name] == command.get_short_help_str(80)
    assert COMMANDS[name] == command.help.splitlines()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text_or_a_plain_name(cli: Cli, name: str) -> None:
    """`--help` of each command works and is data, on stdout."""
    done = cli(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: emowatch {name}")


# Refusals: exit code 2 and one sentence


def test_an_unknown_plugin_is_refused_with_those_installed(
    cli: Cli, model: Path, bank: Path
) -> None:
    """A monitor that is silently not there is worse than none."""
    done = cli("run", PROMPT, "--model", model, "--probe", bank, "--plugin", "nope")
    refused(done, "'nope'", "Installed plugins: drift-alarm, early-warning,")


def test_an_unknown_bank_is_refused_with_what_was_looked_for(cli: Cli, model: Path) -> None:
    """It may be a name, a path or a hub id."""
    refused(cli("run", PROMPT, "--model", model, "--probe", "nope"), "Could not find a bank 'nope'")


def test_a_model_without_a_bank_says_how_to_train_one(cli: Cli, model: Path) -> None:
    """The shipped banks are for the embedded model only."""
    refused(cli("run", PROMPT, "--model", model), "No bank was named", "emowatch train DATA")


def test_a_folder_that_is_not_there_needs_no_bank(cli: Cli) -> None:
    """Advice to train a bank for a model that does not exist would send a user astray."""
    refused(cli("run", PROMPT, "--model", "./nosuch"), "model './nosuch'", "no such folder")


@pytest.mark.parametrize("command", ["train", "evaluate", "extract"])
def test_data_that_is_not_there_is_named(
    command: str, cli: Cli, model: Path, bank: Path, tmp_path: Path
) -> None:
    """Before the model is loaded."""
    arguments = [command, *([bank] if command == "evaluate" else []), tmp_path / "gone.tsv"]
    if command == "extract":
        arguments += ["--out", tmp_path / "out"]
    elif command == "train":
        arguments += ["--out", tmp_path / "out"]
    refused(cli(*arguments, "--model", model), "gone.tsv")


@pytest.mark.parametrize("command", ["train", "evaluate", "extract"])
def test_a_model_that_is_not_there_is_named_before_data_is_read(
    command: str, cli: Cli, bank: Path, tmp_path: Path
) -> None:
    """Reading a large file first would waste minutes on a misspelt folder."""
    arguments = [command, *([bank] if command == "evaluate" else []), tmp_path / "gone.tsv"]
    if command != "evaluate":
        arguments += ["--out", tmp_path / "out"]
    refused(cli(*arguments, "--model", "./nosuch"), "'./nosuch'", "no such folder")
    refused(cli(*arguments, "--device", "abacus"), "'abacus'")


def test_a_folder_is_no_data(cli: Cli, model: Path, data: Path, tmp_path: Path) -> None:
    """The likely mistake of naming the folder that holds the file."""
    refused(cli("train", data, "--model", model, "--out", tmp_path / "out"), str(data))


def test_a_layer_that_the_model_has_not_is_refused_with_those_it_has(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """Layers are those of hidden_states, 0 to 3 here."""
    for command in ("train", "extract"):
        done = cli(
            command,
            data / "train.tsv",
            *("--model", model, "--layers", "0,4", "--out", tmp_path / command),
        )
        refused(done, "There is no layer 4", "0 (the embedding) to 3")


@pytest.mark.parametrize("command", ["train", "evaluate", "extract"])
def test_a_split_of_a_file_is_refused(
    command: str, cli: Cli, model: Path, data: Path, bank: Path, tmp_path: Path
) -> None:
    """Only data sets of the hub have splits."""
    before = (bank,) if command == "evaluate" else ()
    after = () if command == "evaluate" else ("--out", tmp_path / "out")
    done = cli(command, *before, data / "test.tsv", *after, "--split", "test", "--model", model)
    refused(done, "'test'", "--split")


def test_strict_evaluation_refuses_other_weights(
    cli: Cli,
    model: Path,
    data: Path,
    bank: Path,
    tiny_model: LlamaForCausalLM,
    tmp_path: Path,
) -> None:
    """Without the flag the figures are given, with a note of what differs."""
    import torch

    other = shutil.copytree(model, tmp_path / "tiny")
    with torch.no_grad():
        for weight in tiny_model.parameters():
            weight.mul_(1.01)
    tiny_model.save_pretrained(other)
    arguments = "evaluate", bank, data / "test.tsv", "--model", other
    done = cli(*arguments)
    assert done.code == 0, done.err
    assert "Measured on a model with other weights than in training." in done.out
    refused(cli(*arguments, "--strict"), "weights differ", "--strict")
    assert cli(*arguments[:-1], model, "--strict").code == 0


def test_one_class_alone_is_refused(cli: Cli, model: Path, tmp_path: Path) -> None:
    """There is nothing to tell apart."""
    path = write_texts(tmp_path / "one.tsv", 20, classes=("joy",))
    done = cli("train", path, "--model", model, "--out", tmp_path / "out")
    refused(done, "only one class", "joy")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [("", "empty"), (" \n", "empty"), ("a" * 600, "this model's context is 512")],
)
def test_a_prompt_that_leaves_nothing_to_say_is_refused(
    prompt: str, words: str, cli: Cli, model: Path, bank: Path
) -> None:
    """An empty one, and one that fills the context."""
    refused(cli("run", prompt, "--model", model, "--probe", bank), words)


def test_a_bank_for_another_model_names_both(
    cli: Cli,
    model: Path,
    data: Path,
    bank: Path,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    """Its scores would be numbers without a meaning."""
    from tests.model.zoo import make_model

    other = tmp_path / "other"
    make_model("llama", num_hidden_layers=2).save_pretrained(other)
    tiny_tokenizer.save_pretrained(other)
    for arguments in (
        ("run", PROMPT, "--probe", bank),
        ("evaluate", bank, data / "test.tsv"),
    ):
        refused(cli(*arguments, "--model", other), "'mood'", "'tiny'", "'other'")


def test_a_damaged_bank_is_refused(
    cli: Cli, model: Path, data: Path, bank: Path, tmp_path: Path
) -> None:
    """Cut off, as a broken download is."""
    mine = shutil.copytree(bank, tmp_path / "mine")
    whole = (mine / "probe.safetensors").read_bytes()
    (mine / "probe.safetensors").write_bytes(whole[:-100])
    for arguments in (
        ("run", PROMPT, "--probe", mine, "--model", model),
        ("evaluate", mine, data / "test.tsv", "--model", model),
        ("probes", "show", mine),
    ):
        refused(cli(*arguments), "Could not use the bank")


def test_an_output_that_cannot_be_written_is_refused_at_once(
    cli: Cli, model: Path, data: Path, tmp_path: Path
) -> None:
    """A file stands in the way."""
    (tmp_path / "taken").touch()
    for command, option in (("train", "--out"), ("extract", "--out")):
        for out in (tmp_path / "taken", tmp_path / "taken" / "deeper"):
            done = cli(command, data / "train.tsv", "--model", model, option, out)
            refused(done, "Could not write to", "--out")


def test_a_record_that_cannot_be_written_is_refused(
    cli: Cli, model: Path, bank: Path, tmp_path: Path
) -> None:
    """Whoever asks for a record wants no reply without one."""
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2
    done = cli("run", PROMPT, *flags, "--record", tmp_path / "no" / "folder" / "t.jsonl")
    refused(done, "Could not record to", "t.jsonl", "No such file or directory")
    taken = tmp_path / "taken.jsonl"
    taken.write_text("{}\n", encoding="utf-8")
    refused(cli("run", PROMPT, *flags, "--record", taken), "already exists; choose another path")
    assert taken.read_text(encoding="utf-8") == "{}\n"


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_work_folder_that_cannot_be_written_to_is_refused_by_its_option(
    below: str, cli: Cli, data: Path, bank: Path, tmp_path: Path
) -> None:
    """There are two folders to choose; before the model, which is not there, is loaded."""
    (tmp_path / "taken").touch()
    flags = "--work", tmp_path / "taken" / below, "--model", tmp_path / "none"
    for arguments in (
        ("train", data / "train.tsv", "--out", tmp_path / "new"),
        ("evaluate", bank, data / "test.tsv"),
    ):
        refused(cli(*arguments, *flags), "Could not write to", "taken", "--work")


def test_labels_of_replies_need_the_readout_of_replies(
    cli: Cli, data: Path, tmp_path: Path
) -> None:
    """Before the model, which is not there, is loaded."""
    flags = "--model", tmp_path / "none", "--out", tmp_path / "new", "--target", "reply"
    refused(cli("train", data / "train.tsv", *flags), "'last_prompt_token'", "--readout reply")


def test_a_temperature_without_sampling_is_refused(cli: Cli, bank: Path, tmp_path: Path) -> None:
    """Somebody thinks that replies are drawn; refused before the model, which is not there."""
    record = tmp_path / "t.jsonl"
    flags = "--model", tmp_path, "--probe", bank, "--temperature", "0.7", "--record", record
    for command in (("run", PROMPT), ("chat",)):
        refused(cli(*command, *flags), "--temperature 0.7", "--sample")
        refused(cli(*command, *flags, "--greedy"), "--temperature 0.7", "--sample")
        assert "default: 0.8" in cli(command[0], "--help").out
    assert not record.exists()


def test_content_without_a_record_is_refused(cli: Cli, model: Path, bank: Path) -> None:
    """Somebody thinks that a trace is being written."""
    flags = "--model", model, "--probe", bank, "--content", "full"
    for command in (("run", PROMPT), ("chat",)):
        refused(cli(*command, *flags), "--content full", "--record")


def test_plugins_are_listed_without_being_imported(
    cli: Cli, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken package, or one that loads torch, must not take the list with it."""
    monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", "bad")
    site.install("bad", "raise SystemExit('imported')", version="2.1")
    done = cli("plugins")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()] == [
        "bad",
        *DEFAULT_PLUGINS,
    ]
    assert "emowatch-bad 2.1  emowatch_bad" in done.out
    told = cli("plugins", "--hooks")
    assert told.code == 0
    assert "bad              emowatch-bad 2.1  failed  SystemExit: imported" in told.out
    assert "threshold-alarm  built-in          ok      session_started, judge" in told.out
    (found, *_) = json.loads(cli("plugins", "--hooks", "--json").out)
    assert (found["name"], found["status"]) == ("bad", "failed")


def test_a_plugin_may_add_a_command_and_a_broken_one_is_left_out(
    cli: Cli, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked where no built-in command has the name."""
    monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", "adding,bad")
    code = """
import click
from emowatch import hookimpl

@hookimpl
def register_commands(cli):
    cli.add_command(click.Command("extra", callback=lambda: click.echo("more"), help="Say more."))
"""
    site.install("adding", code)
    site.install("bad", "import nowhere")
    done = cli("extra")
    assert (done.code, done.out) == (0, "more\n")
    assert "the plugin 'bad' is left out: ModuleNotFoundError" in done.err
    assert "Say more." in cli("--help").out
    assert cli("plugins").err == ""


def test_usage_errors_show_hostile_arguments_harmlessly(cli: Cli) -> None:
    """A command line may be built from names of files."""
    for arguments in (("run", PROMPT, "--model", "\x1b[2Jx"), ("plugins", "\x1b[2Jx")):
        done = cli(*arguments)
        assert done.code == 2
        assert "\x1b" not in done.err


def test_an_unknown_command_and_option_are_usage_errors(cli: Cli) -> None:
    """click's own, under our exit code."""
    refused(cli("sing"), "No such command 'sing'")
    refused(cli("trian"), "No such command 'trian'.", "Did you mean 'train'?")
    refused(cli("run", PROMPT, "--loud"), "No such option")


def test_a_new_plugin_is_written_checked_and_listed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three steps of the guide, before anything is installed."""
    done = cli("plugins", "new", "mood-lamp", "--out", tmp_path)
    assert done.code == 0, done.err
    folder = tmp_path / "emowatch-mood-lamp"
    assert done.out.splitlines() == [
        str(folder / name)
        for name in (
            "emowatch_mood_lamp.py",
            "pyproject.toml",
            "README.md",
            "tests/test_emowatch_mood_lamp.py",
        )
    ]
    checked = cli("plugins", "check", f"{folder}:least=0.1", "--json")
    sys.modules.pop("emowatch_mood_lamp")
    assert checked.code == 0, checked.out
    (found,) = objects(checked)
    assert {one["passed"] for one in found["mood-lamp"]} == {True}
    assert len(found["mood-lamp"]) > 9
    refused(cli("plugins", "new", "Mood Lamp", "--out", tmp_path), "as in mood-lamp")


def test_a_plugin_that_breaks_the_contract_is_told_and_the_command_fails(
    cli: Cli, tmp_path: Path
) -> None:
    """Each finding has a line; the exit status is for scripts."""
    path = tmp_path / "bad.py"
    path.write_text(
        "from emowatch import hookimpl\n\n\nclass Bad:\n    @hookimpl\n"
        "    def turn_finished(self, turn):\n        next(iter(turn.mean_scores.values()))\n",
        encoding="utf-8",
    )
    done = cli("plugins", "check", f"{path}:Bad")
    assert done.code == 1
    assert (
        "FAILED  it stands hostile values: The plugin 'Bad' failed in turn_finished: Stop"
        in done.out
    )
    assert "ok      it hears a session: " in done.out
    refused(cli("plugins", "check", "no-such-plugin"), "Installed plugins: drift-alarm")
    refused(cli("plugins", "check", "jsonl-log", "--trace", tmp_path / "gone"), "gone")
