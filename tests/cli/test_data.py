"""``emowatch data``, from arguments to files, against a real server on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emowatch.workshop.building.rows import read_rows
from tests.cli.commands import PATIENCE_S, Cli, Done, objects, refused, start
from tests.workshop.building.protocol_server import KEY, WORDS, ProtocolServer, respond

LABELS = ("neutral", *WORDS)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProtocolServer]:
    """Run a server that wants a key, and give the key as people do."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = ProtocolServer(key=KEY)
    yield made
    made.close()


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Write texts whose words tell what a careful labeller says."""
    path = tmp_path / "texts.txt"
    lines = [f"I was {WORDS.get(label, 'there')} on day {n}" for label in LABELS for n in range(12)]
    path.write_text("\n".join([*lines, "das nicht"]) + "\n", encoding="utf-8")
    return path


def endpoint(server: ProtocolServer) -> tuple[str, ...]:
    """Name the server, and its model."""
    return "--base-url", server.url, "--model", "tiny"


def ok(done: Done) -> Done:
    """Check that a command went well."""
    assert done.code == 0, done.err
    return done


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Parse a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_corpus_is_built_from_texts_to_a_split(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """Steps 1 to 4 of the paper, one command each; the next is named by the one before."""
    server.faults = [429, 500, "cut", "page"]
    natural, rewritten, made = (tmp_path / f"{name}.jsonl" for name in ("nat", "rew", "syn"))
    done = ok(cli("data", "label", texts, "--out", natural, *endpoint(server)))
    assert done.out.splitlines()[0] == f"{natural}: 84 rows of 85 items"
    assert "coverage 1.000 [0.957, 1.000], 85 of 85 answers read" in done.out
    assert "left out   not English 1" in done.out
    assert f"Next: emowatch data rewrite {natural}" in done.err
    done = ok(cli("data", "rewrite", natural, "--out", rewritten, *endpoint(server), "--json"))
    (told,) = objects(done)
    assert (told["rows"], told["asked"], told["gate"]["share"]) == (12, 12, 1.0)
    assert told["gate"]["chance"] < 0.5 and told["pending"] == {}
    flags = ("--per-label", 2, "--shots", 3)
    ok(cli("data", "synthesize", natural, "--out", made, *endpoint(server), *flags))
    merged, parts = tmp_path / "all.jsonl", tmp_path / "parts"
    done = ok(cli("data", "filter", natural, rewritten, made, "--out", merged, "--near", 1))
    assert done.out.splitlines()[0] == f"{merged}: 108 of 108 rows"
    done = ok(cli("data", "split", merged, "--out", parts, "--test", 0.4))
    assert (
        "none straddles" in done.out and f"Next: emowatch train {parts / 'train.jsonl'}" in done.err
    )
    sides = [rows_of(parts / f"{side}.jsonl") for side in ("train", "test")]
    assert not {r["parent"] for r in sides[0]} & {r["parent"] for r in sides[1]}
    done = ok(cli("data", "card", merged, "--json"))
    (card,) = objects(done)
    assert card["table"]["joy"]["natural"] == 12 and card["table"]["joy"]["synthetic"] == 2
    assert card["models"] == {"tiny": 108} and card["sources"] == {"texts.txt": 108}
    assert len(card["templates"]) == 3
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY in path.read_text()]


def test_a_built_corpus_trains_a_bank(
    cli: Cli, server: ProtocolServer, texts: Path, model: Path, tmp_path: Path
) -> None:
    """It is what it was built for; children stay with their parents without an option."""
    natural, rewritten, merged = (tmp_path / f"{name}.jsonl" for name in ("nat", "rew", "all"))
    ok(cli("data", "label", texts, "--out", natural, *endpoint(server)))
    ok(cli("data", "rewrite", natural, "--out", rewritten, *endpoint(server)))
    ok(cli("data", "filter", natural, rewritten, "--out", merged, "--near", 1))
    flags = ("--readout", "mean", "--no-template", "--head", "linear", "--layers", "1")
    bank = tmp_path / "bank"
    done = ok(cli("train", merged, "--out", bank, "--model", model, *flags))
    assert "96 examples" in done.err
    assert (bank / "probe.safetensors").exists()


def test_a_second_run_asks_nothing(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """The same command writes the same file from the answers that are kept."""
    out = tmp_path / "a.jsonl"
    command = ("data", "label", texts, "--out", out, *endpoint(server))
    prices = ("--price-in", 1000, "--price-out", 1000, "--json")
    (first,) = objects(ok(cli(*command, *prices)))
    before, asked = out.read_bytes(), len(server.bodies)
    (again,) = objects(ok(cli(*command, *prices)))
    assert out.read_bytes() == before and len(server.bodies) == asked == 85
    assert first["spent"]["cost"] == again["spent"]["cost"] > 0
    assert again["spent"]["cost_of_this_run"] == 0
    refused(cli(*command[:-1], "other"), "another model", "--work")
    more = tmp_path / "more.txt"
    more.write_text("I was happy again\n", encoding="utf-8")
    refused(cli("data", "label", more, *command[3:]), "another source")
    refused(cli("data", "rewrite", out, *command[3:]), "it is there already")
    assert out.read_bytes() == before


def test_kill_and_resume_lose_nothing_and_pay_nothing_twice(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """At most the requests that were under way are asked again."""
    out, whole = tmp_path / "a.jsonl", tmp_path / "whole.jsonl"
    command = ("data", "label", texts, "--out", out, *endpoint(server), "--concurrency", 3)
    server.delay_s = 0.05
    for asked in (20, 50):
        process = start(*command, home=tmp_path)
        _wait_for(process, lambda goal=asked: len(server.answered) >= goal)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
        assert not out.exists()
    kept = len((tmp_path / "a.jsonl.work" / "label.answers.jsonl").read_bytes().splitlines()) - 1
    assert kept >= len(set(server.answered)) - 2 * 3
    server.delay_s = 0
    ok(cli(*command))
    assert len(set(server.answered)) == 85
    assert len(server.answered) <= 85 + 2 * 3  # two kills, three requests each
    ok(cli("data", "label", texts, "--out", whole, *endpoint(server)))
    assert rows_of(out) == rows_of(whole)


def test_ctrl_c_leaves_at_once_and_says_what_is_kept(
    server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """Also where the server hangs."""
    server.faults = [*[200] * 10, *["hang"] * 99]
    process = start(
        "data", "label", texts, "--out", tmp_path / "a.jsonl", *endpoint(server), home=tmp_path
    )
    _wait_for(process, lambda: len(server.bodies) >= 18)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 20
    assert "What is finished is kept" in err and "Traceback" not in err


def _wait_for(process: subprocess.Popen[str], reached: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


# What goes wrong


def test_a_wrong_key_and_a_server_that_is_down_are_told_apart(
    cli: Cli,
    server: ProtocolServer,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One is for the user to mend (2), the other may pass (3); both keep the answers."""
    command = ("data", "label", texts, "--out", tmp_path / "a.jsonl", *endpoint(server))
    server.faults = [*[200] * 9, *[500] * 999]
    flags = ("--concurrency", 1, "--attempts", 1)
    refused(cli(*command, *flags), "500", "The 9 answers so far are kept", code=3)
    server.faults = []
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    done = cli(*command)
    refused(done, "the key in OPENAI_API_KEY is refused (401)")
    assert "sk-wrong" not in done.err
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ok(cli(*command))
    assert len(server.answered) == 85
    server.close()
    gone = ("data", "label", texts, "--out", tmp_path / "b.jsonl", *endpoint(server))
    refused(cli(*gone, "--attempts", 1), "Could not get an answer from", server.url, code=3)
    assert not (tmp_path / "b.jsonl").exists()


def test_what_a_server_failed_at_is_written_without_it(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """And the exit code says that it may be there another time."""
    out = tmp_path / "a.jsonl"
    command = ("data", "label", texts, "--out", out, *endpoint(server), "--attempts", 1)
    server.faults = [200, 500, 200]
    done = cli(*command, "--concurrency", 1)
    assert done.code == 3 and "no answer 1" in done.out
    assert "for 1 of 85 items" in done.err and "the server answered 500" in done.err
    assert len(rows_of(out)) == 83
    ok(cli(*command))
    assert len(rows_of(out)) == 84 and len(server.answered) == 85


def test_the_cost_limit_stops_with_what_is_done(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """A raised limit goes on from there."""
    out = tmp_path / "a.jsonl"
    command = ("data", "label", texts, "--out", out, *endpoint(server), "--concurrency", 1)
    prices = ("--price-in", 1000, "--price-out", 1000)
    done = cli(*command, *prices, "--max-cost", 2)
    assert done.code == 1 and "Stopped at --max-cost" in done.err
    first = len(server.answered)
    assert 0 < first < 85 and f"not asked {85 - first}" in done.out
    ok(cli(*command, *prices, "--max-cost", 2000))
    assert len(server.answered) == 85
    refused(cli(*command, "--max-cost", 2), "--price-in and --price-out")


def test_too_few_examples_and_wrong_names_are_refused_before_a_prompt_is_sent(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """Prompts cost money; nothing is left behind."""
    natural, out = tmp_path / "nat.jsonl", tmp_path / "out.jsonl"
    ok(cli("data", "label", texts, "--out", natural, *endpoint(server)))
    asked, files = len(server.bodies), sorted(tmp_path.iterdir())
    odd = tmp_path.parent / "odd.jinja"
    odd.write_text("{{ text }} {{ mood }}", encoding="utf-8")
    latin = tmp_path.parent / "latin.txt"
    latin.write_bytes("é\nü\n".encode("latin-1"))
    ask = endpoint(server)
    for words, command in (
        ("too few natural texts (anger 12", ("synthesize", natural, "--shots", 13)),
        ("no natural text is labelled 'calm'", ("rewrite", natural, "--from", "calm")),
        ("Could not write texts for 'awe'", ("rewrite", natural, "--to", "awe,joy")),
        ("there is no {{ mood }} to place", ("label", texts, "--template", odd)),
        ("Name the file's encoding", ("label", latin)),
        ("there is no such file", ("label", tmp_path / "no.csv")),
        ("No column is called as a label", ("rewrite", _csv(tmp_path.parent), "--from", "joy")),
        ("labels must be distinct", ("label", texts, "--labels", "joy,joy")),
        ("Could not read --param", ("label", texts, "--param", "top_p=high")),
        ("Could not read --param", ("label", texts, "--param", "model=1")),
        ("Could not use --revision", ("label", texts, "--revision", "v2")),
    ):
        refused(cli("data", *command, "--out", out, *ask), words)
    refused(cli("data", "label", texts, "--out", tmp_path / "a.csv", *ask), "Name a .jsonl file")
    refused(cli("data", "label", texts, "--out", out, "--base-url", server.url), "with --model")
    refused(cli("data", "label", texts, "--out", out, "--base-url", "x", "--model", "m"), "http")
    refused(cli("data", "label", texts, "--out", out, "--temperature", 1), "without --base-url")
    assert len(server.bodies) == asked
    assert sorted(tmp_path.iterdir()) == files


def _csv(folder: Path) -> Path:
    path = folder / "unlabelled.csv"
    path.write_text("text\nhello there\n", encoding="utf-8")
    return path


def test_an_existing_file_is_replaced_only_where_asked(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """It may be somebody's work."""
    out = tmp_path / "a.jsonl"
    out.write_text("mine", encoding="utf-8")
    refused(cli("data", "label", texts, "--out", out, *endpoint(server)), "--overwrite")
    refused(cli("data", "filter", texts, "--out", out), "--overwrite")
    assert out.read_text(encoding="utf-8") == "mine" and not server.bodies
    ok(cli("data", "label", texts, "--out", out, *endpoint(server), "--overwrite"))
    assert len(rows_of(out)) == 84


# Who answers


def test_templates_are_copied_edited_and_used(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """The rows name the template by its hash."""
    done = ok(cli("data", "templates", "--out", tmp_path / "mine"))
    assert f"{tmp_path / 'mine' / 'rewrite.jinja'}: may place" in done.out
    mine = tmp_path / "mine" / "label.jinja"
    mine.write_text(f"My own.\n{mine.read_text(encoding='utf-8')}", encoding="utf-8")
    out = tmp_path / "a.jsonl"
    flags = ("--template", mine, "--limit", 5, "--param", "top_p=0.5", "--temperature", 0.2)
    ok(cli("data", "label", texts, "--out", out, *endpoint(server), *flags))
    assert all(body["messages"][0]["content"].startswith("My own.") for body in server.bodies)
    assert {(body["top_p"], body["temperature"]) for body in server.bodies} == {(0.5, 0.2)}
    other = tmp_path / "b.jsonl"
    ok(cli("data", "label", texts, "--out", other, *endpoint(server), "--limit", 5))
    assert read_rows(out).rows[0].template != read_rows(other).rows[0].template


def test_another_model_can_judge(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """A model that judges what it wrote agrees with itself."""
    natural, out = tmp_path / "nat.jsonl", tmp_path / "out.jsonl"
    ok(cli("data", "label", texts, "--out", natural, *endpoint(server)))
    server.bodies.clear()
    flags = ("--judge-model", "judge", "--temperature", 0.9)
    ok(cli("data", "rewrite", natural, "--out", out, *endpoint(server), *flags))
    asked = {(body["model"], body["temperature"]) for body in server.bodies}
    assert asked == {("tiny", 0.9), ("judge", 0.0)}


def test_a_model_on_this_machine_that_answers_nonsense_is_told_as_such(
    cli: Cli, model: Path, texts: Path, tmp_path: Path
) -> None:
    """Coverage near nothing is the honest figure, and no crash."""
    short = tmp_path / "short.jinja"
    short.write_text("{{ text }}: which of {{ labels[0] }}?", encoding="utf-8")
    out = tmp_path / "a.jsonl"
    flags = ("--model", model, "--template", short, "--max-new-tokens", 8, "--limit", 6)
    done = cli("data", "label", texts, "--out", out, *flags)
    assert done.code == 1
    assert "coverage 0.000 [0.000, 0.390], 0 of 6 answers read" in done.out
    assert "Could not use any of the answers for 6 items" in done.err
    assert rows_of(out) == []
    assert len(rows_of(tmp_path / "a.quarantine.jsonl")) == 6


def test_a_split_that_would_lose_a_class_is_refused(cli: Cli, tmp_path: Path) -> None:
    """Before a file is written."""
    data = tmp_path / "a.csv"
    rows = [f'"I am happy, {n}",joy' for n in range(30)]
    data.write_text("\n".join(["text,label", *rows, "so scared,fear"]) + "\n", encoding="utf-8")
    refused(cli("data", "split", data, "--out", tmp_path / "p"), "no row labelled 'fear'")
    assert not (tmp_path / "p").exists()
    refused(
        cli("data", "split", data, "--out", tmp_path / "p", "--test", 0.6, "--validation", 0.4),
        "train on",
    )


def test_rows_that_cannot_be_read_are_put_aside_in_the_same_file(cli: Cli, tmp_path: Path) -> None:
    """And counted: what is lost is lost in sight."""
    lines = [f"the bus was late again today {n},{'joy' if n % 2 else 'fear'}" for n in range(12)]
    path = tmp_path / "some.csv"
    path.write_bytes(
        "\n".join(
            ["text,label", *lines, "caf\xe9 is closed today,joy", ",joy", "too short,joy"]
        ).encode("latin-1")
    )
    out = tmp_path / "kept.jsonl"
    done = cli("data", "filter", path, "--out", out, "--near", 1, "--json")
    told = json.loads(done.out)
    assert told["rows"] == 12
    assert told["dropped"] == {"undecodable bytes": 1, "empty text": 1, "fewer than 3 words": 1}
    aside = [
        json.loads(line) for line in (tmp_path / "kept.quarantine.jsonl").read_text().splitlines()
    ]
    assert [(one["id"], one["reason"]) for one in aside[:2]] == [
        ("some.csv:14", "undecodable bytes"),
        ("some.csv:15", "empty text"),
    ]
    assert "--encoding" in done.err
    shown = cli("data", "filter", path, "--out", out, "--near", 1, "--overwrite")
    assert "12 of 15 rows" in shown.out


def test_nothing_a_server_says_reaches_the_terminal_raw(
    cli: Cli, server: ProtocolServer, texts: Path, tmp_path: Path
) -> None:
    """Errors and answers are somebody else's text."""
    server.error = {"error": {"message": "\x1b[2Jgone\u202e"}}
    server.faults = [401]
    done = cli("data", "label", texts, "--out", tmp_path / "a.jsonl", *endpoint(server))
    assert done.code == 2 and "\x1b" not in done.err and "\u202e" not in done.err
    server.respond = lambda prompt: respond(prompt).replace('"joy"', '"\x1b[2Jjoy"')
    done = ok(cli("data", "label", texts, "--out", tmp_path / "a.jsonl", *endpoint(server)))
    assert "not JSON 12" in done.out
    assert "\x1b" not in done.out + done.err
