"""``emowatch replay`` and ``emowatch assert``: a stored session without its model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emowatch.conformance import recorded_trace
from emowatch.conformance.checks import RECORDED
from tests.cli.commands import Cli, objects, refused


def test_a_replay_shows_each_reply_token_with_its_alarms(cli: Cli) -> None:
    """Token by token, in the order in which they came."""
    trace = recorded_trace()
    done = cli("replay", RECORDED)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "turn 0"
    shown = [line for line in lines if "█" in line or line.split()[-2:-1]]
    replies = [score for score in trace.tokens if score.offset is not None]
    alarms = [alarm for alarm in trace.alarms if alarm.bank == trace.tokens.bank.name]
    assert len(lines) == len(replies) + len(alarms) + len({s.turn for s in replies})
    assert sum(line.startswith("alarm") for line in lines) == len(alarms) > 0
    assert shown[1].split()[-1] == replies[0].dominant


def test_a_replay_drives_plugins_over_the_session(cli: Cli) -> None:
    """A stricter rule on a stored session tells what it would have raised."""
    rule = "threshold-alarm:threshold=0.4,consecutive=2"
    done = cli("replay", RECORDED, "--plugin", rule)
    assert done.code == 0, done.err
    alarms = recorded_trace().alarms
    assert done.err.count("alarm (warning)") == len(alarms)
    assert f"{len(alarms)} alarms" in done.out
    assert cli("replay", RECORDED, "--plugin", rule, "--fail-on-alarm").code == 4
    assert "would have ended" not in done.out
    stopped = cli("replay", RECORDED, "--plugin", f"{rule},action=stop")
    first = alarms[0]
    assert f"turn {first.turn} would have ended at token {first.offset}; the rec" in stopped.out
    assert stopped.out.count("would have ended") == len({(a.turn, a.sequence) for a in alarms})
    refused(cli("replay", RECORDED, "--plugin", "nothing"), "Installed plugins")


def test_a_trace_that_was_cut_off_is_replayed_as_far_as_it_goes(cli: Cli, tmp_path: Path) -> None:
    """In the middle of a line, as a killed writer leaves it."""
    written = RECORDED.read_text(encoding="ascii")
    cut = tmp_path / "cut.jsonl"
    cut.write_text(written[: len(written) // 2], encoding="ascii")
    done = cli("replay", cut)
    assert done.code == 0
    assert "the trace has no end" in done.err
    assert "turn 0" in done.out


def test_what_is_no_trace_or_of_a_newer_schema_is_refused(cli: Cli, tmp_path: Path) -> None:
    """Before a line is printed."""
    newer = tmp_path / "newer.jsonl"
    newer.write_text(
        RECORDED.read_text(encoding="ascii").replace('"schema":1', '"schema":99', 1),
        encoding="ascii",
    )
    refused(cli("replay", newer), "of schema 99, and this version of emowatch reads 1. Upgrade")
    refused(cli("replay", tmp_path / "gone"), "gone")
    assert cli("replay", RECORDED, "--bank", "x").code == 2


def test_an_expression_decides_the_exit_status(cli: Cli) -> None:
    """For continuous integration."""
    done = cli("assert", RECORDED, "turns() == 4 and max(joy) <= 1")
    assert done.code == 0
    assert done.out.startswith("ok      turns() == 4\n")
    done = cli("assert", RECORDED, "max(joy) < 0.1", "--json")
    assert done.code == 1
    (verdict,) = objects(done)
    assert verdict["holds"] is False
    assert verdict["compared"][0]["text"] == "max(joy) < 0.1"
    refused(cli("assert", RECORDED, "__import__('os')"), "a comparison such as")
    refused(cli("assert", RECORDED, "max(joi) < 1"), "did you mean 'joy'?")
    assert cli("assert", RECORDED).code == 2


def test_functions_are_listed(cli: Cli) -> None:
    """Without a trace."""
    done = cli("assert", "--functions")
    assert done.code == 0
    assert "half_life(label)" in done.out


@pytest.mark.parametrize("speed", ["0", "-1", "x"])
def test_a_speed_that_cannot_be_is_refused(speed: str, cli: Cli) -> None:
    """Before anything is read."""
    assert cli("replay", RECORDED, "--speed", speed).code == 2


def test_a_verdict_is_plain_json(cli: Cli) -> None:
    """Infinity is none; scripts get a number that JSON has."""
    done = cli("assert", RECORDED, "half_life(joy) > 0", "--json")
    json.loads(done.out, parse_constant=lambda name: pytest.fail(name))


def test_two_traces_are_compared_in_a_table_or_as_json(cli: Cli, tmp_path: Path) -> None:
    """The same figures in both."""
    done = cli("diff", RECORDED, RECORDED)
    assert done.code == 0, done.err
    assert "distance 0.000; same dominant label at 100.0%" in done.out
    assert "joy" in done.out and "4 replies are too few" in done.out
    (found,) = objects(cli("diff", RECORDED, RECORDED, "--json", "--bank", "demo-ekman7"))
    assert (found["bank"], found["p"], found["distance"]) == ("demo-ekman7", None, 0)
    refused(cli("diff", RECORDED, RECORDED, "--bank", "x"), "no bank 'x'")
    refused(cli("diff", RECORDED, tmp_path / "gone"), "gone")


def test_a_report_is_text_json_or_a_page(cli: Cli, tmp_path: Path) -> None:
    """The same conversation in each."""
    done = cli("report", RECORDED)
    assert done.code == 0, done.err
    assert "turn 0 reply: " in done.out and "turn 1 row 1 user: " in done.out
    assert "fewer than 6 turns" in done.out
    (found,) = objects(cli("report", RECORDED, "--json", "--bank", "demo-ekman7"))
    assert len(found["turns"]) == 4
    page = tmp_path / "page.html"
    assert cli("report", RECORDED, "--html", page).code == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    refused(cli("report", RECORDED, "--html", page), "page.html", "--overwrite")
    assert cli("report", RECORDED, "--html", page, "--overwrite").code == 0
    refused(cli("report", RECORDED, "--bank", "x"), "no bank 'x'")
    refused(cli("report", RECORDED, "--html", tmp_path / "no" / "page.html"), code=1)


def test_a_report_of_a_session_that_never_spoke_says_so(cli: Cli, tmp_path: Path) -> None:
    """Nothing at all would look like a failure of the command."""
    path = tmp_path / "silent.jsonl"
    path.write_text(RECORDED.read_text(encoding="ascii").splitlines(keepends=True)[0])
    done = cli("report", path)
    assert (done.code, done.out) == (0, "")
    assert "the trace holds no turn" in done.err
