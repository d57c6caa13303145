"""The JSON-lines log: what it writes, what it keeps to itself, and when it refuses."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from emowatch.default_plugins.jsonl_log import JsonlLog
from emowatch.dispatch import Dispatcher
from emowatch.errors import PluginError
from emowatch.plugins import load_plugin, make_plugin_manager
from tests.conftest import make_score, make_session, make_turn

SECRET = "canary-4711 whistles nocturnes"
SECRET_IDS = (918_273, 645_546)
POSIX = os.name == "posix"


def log_session(log: JsonlLog, text: str = SECRET) -> list[dict[str, Any]]:
    """Log a short session and give its lines."""
    log.session_started(make_session())
    for offset in range(3):
        log.token_scored(make_score(offset=offset))
    log.turn_finished(make_turn(0, 0, text, token_ids=SECRET_IDS))
    log.session_finished()
    return [json.loads(line) for line in log.path.read_text(encoding="ascii").splitlines()]


def turn_of(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Find the turn's line."""
    (turn,) = [line for line in lines if line["type"] == "turn"]
    return turn


# What is written


def test_a_session_is_lines_of_known_types(tmp_path: Path) -> None:
    """The first and the last say that it is whole."""
    lines = log_session(JsonlLog(tmp_path / "t.jsonl"))
    assert [line["type"] for line in lines] == ["session", *["token"] * 3, "turn", "end"]
    session, token, end = lines[0], lines[1], lines[-1]
    assert (session["schema"], session["seed"], session["content"]) == (1, 7, "none")
    assert {"emowatch", "python", "torch", "transformers"} <= set(session["versions"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", session["started"])
    assert token == {
        "type": "token",
        "bank": 0,
        "turn": 0,
        "sequence": 0,
        "position": 9,
        "offset": 0,
        "segment": "reply",
        "scores": [0.25, 0.75],
    }
    assert end["tokens"] == 3


def test_scores_have_seven_decimals(tmp_path: Path) -> None:
    """More are noise in float32, and the file is mostly scores."""
    log = JsonlLog(tmp_path / "t.jsonl")
    log.session_started(make_session())
    log.token_scored(make_score([1 / 3, 1 / 30_000]))
    log.session_finished()
    line = log.path.read_text(encoding="ascii").splitlines()[1]
    assert '"scores":[0.3333333,0.0000333]' in line


def test_each_line_is_on_file_at_once(tmp_path: Path) -> None:
    """A log that waits for a buffer loses what mattered most: the end."""
    log = JsonlLog(tmp_path / "t.jsonl")
    log.session_started(make_session())
    for count in range(2, 5):
        log.token_scored(make_score())
        assert log.path.read_bytes().count(b"\n") == count
    log.session_finished()


def test_without_a_path_each_log_is_a_new_file_of_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plugins=["jsonl-log"]` is the first thing that the README shows; it says where it wrote."""
    logs = [JsonlLog(), JsonlLog()]
    assert logs[0].path != logs[1].path
    assert {log.path.parent for log in logs} == {Path(os.environ["EMOWATCH_HOME"]) / "logs"}
    assert len(log_session(logs[0])) == 6
    assert capsys.readouterr().err == f"\nemowatch: jsonl-log wrote {logs[0].path}\n"
    log_session(JsonlLog(tmp_path / "named.jsonl"))
    assert capsys.readouterr().err == ""


# What is not


def test_by_default_neither_text_nor_token_ids_are_on_file(tmp_path: Path) -> None:
    """Token ids give the text back to anybody with the tokenizer."""
    log = JsonlLog(tmp_path / "t.jsonl")
    log_session(log)
    written = log.path.read_text(encoding="ascii")
    for secret in (SECRET, *SECRET.split(), *map(str, SECRET_IDS)):
        assert secret not in written
    assert "text" not in written and "token_ids" not in written


def test_a_hash_stands_for_the_text_and_holds_within_an_installation(tmp_path: Path) -> None:
    """One can tell that two replies are equal, and nothing else."""
    first, again, other = (
        turn_of(log_session(JsonlLog(tmp_path / f"{n}.jsonl", content="hash"), text))
        for n, text in enumerate((SECRET, SECRET, SECRET + "."))
    )
    assert first["text_hmac"] == again["text_hmac"] != other["text_hmac"]
    assert re.fullmatch("[0-9a-f]{64}", first["text_hmac"])
    assert SECRET not in json.dumps(first) and "token_ids" not in first


def test_another_installation_has_other_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key of one's own, short replies could be guessed from their hash."""
    hashes = set()
    for home in ("one", "two"):
        monkeypatch.setenv("EMOWATCH_HOME", str(tmp_path / home))
        lines = log_session(JsonlLog(tmp_path / f"{home}.jsonl", content="hash"))
        hashes.add(turn_of(lines)["text_hmac"])
    assert len(hashes) == 2


def test_full_content_is_written_when_asked_for(tmp_path: Path) -> None:
    """Half a surrogate pair, which a byte-level tokenizer can make, is no reason to fail."""
    turn = turn_of(log_session(JsonlLog(tmp_path / "t.jsonl", content="full"), "a\ud83d\x1b"))
    assert turn["text"] == "a\ud83d\x1b"
    assert turn["token_ids"] == list(SECRET_IDS)


def test_the_key_is_made_once_also_by_many_at_a_time(tmp_path: Path) -> None:
    """Servers start several processes at once."""
    keys: set[bytes] = set()
    start = threading.Barrier(8)

    def make(number: int) -> None:
        start.wait()
        keys.add(JsonlLog(tmp_path / f"{number}.jsonl", content="hash")._key)

    threads = [threading.Thread(target=make, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 1 and len(keys.pop()) == 32


def test_a_damaged_key_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Making a new one in silence would part hashes that belong together."""
    key = Path(os.environ["EMOWATCH_HOME"]) / "key"
    key.write_bytes(b"short")
    with pytest.raises(ValueError, match=r"has 5 bytes, not 32\. Remove it"):
        JsonlLog(tmp_path / "t.jsonl", content="hash")


@pytest.mark.skipif(not POSIX, reason="modes are a matter of POSIX")
def test_only_the_owner_may_read_what_is_written(tmp_path: Path) -> None:
    """Scores alone say a lot about a conversation."""
    home = Path(os.environ["EMOWATCH_HOME"])
    JsonlLog(tmp_path / "t.jsonl", content="hash")
    JsonlLog()
    (own,) = (home / "logs").iterdir()
    for path in (tmp_path / "t.jsonl", home / "key", own):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "logs").stat().st_mode) == 0o700


# What is refused


def test_an_existing_log_is_never_added_to_or_overwritten(tmp_path: Path) -> None:
    """Two sessions in one file could not be told apart."""
    path = tmp_path / "t.jsonl"
    log_session(JsonlLog(path))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="already exists; choose another path or remove it"):
        JsonlLog(path)
    assert path.read_bytes() == before


def test_a_second_session_of_one_log_is_refused(tmp_path: Path) -> None:
    """The object outlives its session; the file must not take a second one."""
    log = JsonlLog(tmp_path / "t.jsonl")
    log_session(log)
    with pytest.raises(ValueError, match="already exists"):
        log.session_started(make_session())


def test_an_empty_file_is_taken(tmp_path: Path) -> None:
    """`mktemp` makes one."""
    (tmp_path / "t.jsonl").touch()
    assert len(log_session(JsonlLog(tmp_path / "t.jsonl"))) == 6


def test_an_unknown_content_is_refused_with_the_three(tmp_path: Path) -> None:
    """A typo here must not end in more being written than was meant."""
    with pytest.raises(ValueError, match="must be none, hash or full, got 'Full'"):
        JsonlLog(tmp_path / "t.jsonl", content="Full")
    assert not list(tmp_path.iterdir())


def test_stdout_is_no_file() -> None:
    """Data of other commands goes there, and a file named ``-`` is hard to remove."""
    with pytest.raises(ValueError, match="name a path, got '-'"):
        JsonlLog("-")


def test_a_folder_that_cannot_be_written_to_is_reported_before_the_first_word(
    tmp_path: Path,
) -> None:
    """The dispatcher would only switch the log off."""
    with pytest.raises(PluginError, match=r"'jsonl-log'.*No such file or directory.*t\.jsonl"):
        load_plugin(("jsonl-log", {"path": tmp_path / "missing" / "t.jsonl"}))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_the_log_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """The conversation goes on, and one line says that its log does not."""
    log = JsonlLog("/dev/full")
    dispatcher = Dispatcher(make_plugin_manager([log]))
    dispatcher.tell("session_started", make_session())
    for _ in range(3):
        dispatcher.tell("token_scored", make_session(), score=make_score())
    dispatcher.tell("session_finished", make_session())
    assert dispatcher.errors == {"JsonlLog": 1}
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left" in line
