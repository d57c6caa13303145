"""Answers on disk: none is lost by a kill, none is taken for another's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emowatch.errors import TrainingError, UsageError
from emowatch.workshop.building import Answer
from emowatch.workshop.building.ledger import key_of, open_ledger

JOB = {"template": "t1", "model": "tiny", "settings": {"max_tokens": 9}}
ANSWER = Answer(text="joy\n\ud83d", prompt_tokens=3, completion_tokens=2, is_cut=True)
ROOT = Path(__file__).parents[3]


def test_what_is_added_is_there_again(tmp_path: Path) -> None:
    """With its counts, which are what was paid."""
    path = tmp_path / "a.jsonl"
    with open_ledger(path, JOB) as ledger:
        ledger.add("k1", ANSWER)
        ledger.add("k2", ANSWER)
    with open_ledger(path, JOB) as again:
        assert again.get("k1") == ANSWER and again.get("k3") is None
        assert (len(again), again.prompt_tokens, again.completion_tokens) == (2, 6, 4)


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_torn_line_is_dropped_and_the_others_stay(tmp_path: Path, cut: int) -> None:
    """Wherever the kill came."""
    path = tmp_path / "a.jsonl"
    with open_ledger(path, JOB) as ledger:
        ledger.add("k1", ANSWER)
        ledger.add("k2", ANSWER)
    os.truncate(path, path.stat().st_size - cut)
    with open_ledger(path, JOB) as again:
        assert (len(again), again.get("k2")) == (1, None)
        again.add("k2", ANSWER)
    with open_ledger(path, JOB) as third:
        assert len(third) == 2


@pytest.mark.parametrize(
    ("name", "value"), [("template", "t2"), ("model", "big"), ("settings", {"max_tokens": 8})]
)
def test_the_answers_of_another_job_are_refused(tmp_path: Path, name: str, value: object) -> None:
    """They would be taken for answers to prompts that were never asked."""
    path = tmp_path / "a.jsonl"
    with open_ledger(path, JOB) as ledger:
        ledger.add("k1", ANSWER)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=f"another {name}"), open_ledger(path, JOB | {name: value}):
        pass
    assert path.read_bytes() == before


def test_a_job_without_an_answer_is_nobodys(tmp_path: Path) -> None:
    """A first run with a mistyped model must not stand in the way of the second."""
    path = tmp_path / "a.jsonl"
    with open_ledger(path, JOB | {"model": "tyni"}):
        pass
    with open_ledger(path, JOB) as ledger:
        ledger.add("k1", ANSWER)
    with open_ledger(path, JOB) as again:
        assert len(again) == 1


@pytest.mark.parametrize("line", [b"[]\n", b"{}\n", b'{"key": "a", "text": 1}\n', b"\x00\n"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    """Whoever paid for the others can remove this one."""
    path = tmp_path / "a.jsonl"
    with open_ledger(path, JOB) as ledger:
        ledger.add("k1", ANSWER)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(TrainingError, match="line 3 is damaged"), open_ledger(path, JOB):
        pass


def test_an_answer_outlives_a_kill_at_once(tmp_path: Path) -> None:
    """A process that adds and is killed in the next instruction has lost nothing."""
    path = tmp_path / "a.jsonl"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from emowatch.workshop.building import Answer\n"
        "from emowatch.workshop.building.ledger import open_ledger\n"
        "with open_ledger(Path(sys.argv[1]), {'model': 'tiny'}) as ledger:\n"
        "    for n in range(20):\n"
        "        ledger.add(str(n), Answer(text='x', prompt_tokens=1, completion_tokens=1))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    with open_ledger(path, {"model": "tiny"}) as ledger:
        assert len(ledger) == 20


def test_a_key_tells_apart_what_changes_the_answer() -> None:
    """Model, settings, words, and which of several equal prompts it is."""
    said = ({"role": "user", "content": "a"},)
    keys = {
        key_of({"model": "m"}, said),
        key_of({"model": "n"}, said),
        key_of({"model": "m", "settings": {"top_p": 1}}, said),
        key_of({"model": "m"}, ({"role": "user", "content": "b"},)),
        key_of({"model": "m"}, ({"role": "system", "content": "a"},)),
        key_of({"model": "m"}, said, "1"),
    }
    assert len(keys) == 6
    assert key_of({"model": "m"}, said) == key_of({"model": "m"}, said)
