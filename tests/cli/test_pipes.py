"""Signals and pipes, which need a process of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emowatch.trace import Trace
from tests.cli.commands import PATIENCE_S, PROMPT, start
from tests.workshop.synthetic import write_texts

INTERRUPTED = """
import os, signal, sys

class Finger:
    def find_spec(self, name, path, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)

wanted = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finger())
from emowatch.cli import main
main()
"""
"""Presses Ctrl+C when a module is about to be imported."""


@pytest.mark.parametrize("module", ["click", "emowatch.cli.quiet", "emowatch.cli.root", "pluggy"])
def test_ctrl_c_before_a_command_has_begun_ends_quietly(module: str, tmp_path: Path) -> None:
    """Exit code 130 and an end of the line that the terminal wrote `^C` on."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, "plugins"],
        env=os.environ | {"EMOWATCH_HOME": str(tmp_path), "EMOWATCH_LOAD_PLUGINS": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\n")


def test_ctrl_c_while_training_leaves_no_half_of_a_bank(model: Path, tmp_path: Path) -> None:
    """Exit code 130, and what was done is kept for the next run."""
    texts, out = write_texts(tmp_path / "train.tsv", 700), tmp_path / "mood"
    flags = "--readout", "reply", "--max-new-tokens", 300, "--model", model, "--out", out
    process = start("train", texts, *flags, home=tmp_path)
    kept = out / "work" / "replies.jsonl"
    deadline = time.monotonic() + PATIENCE_S
    while not (kept.exists() and kept.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, told
    assert said == ""
    assert "Traceback" not in told
    assert told.endswith("the same command goes on from there.\n\nemowatch: interrupted\n")
    assert [path.name for path in out.iterdir()] == ["work"]


@pytest.mark.parametrize("command", ["extract", "evaluate"])
def test_ctrl_c_while_states_are_read_is_told_in_words(
    command: str, model: Path, bank: Path, tmp_path: Path
) -> None:
    """Exit code 130, and how to go on, as the last lines there are."""
    texts, out = write_texts(tmp_path / "many.tsv", 3000), tmp_path / "states"
    arguments: dict[str, tuple[object, ...]] = {
        "extract": (texts, "--out", out),
        "evaluate": (bank, texts, "--work", out),
    }
    begun = out / "key" if command == "extract" else out / "states" / "key"
    process = start(command, *arguments[command], "--model", model, home=tmp_path)
    deadline = time.monotonic() + PATIENCE_S
    while not begun.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, told = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said) == (130, ""), told
    assert "Traceback" not in told
    assert told.endswith("the same command goes on from there.\n\nemowatch: interrupted\n")


def test_ctrl_c_in_a_piped_chat_ends_it(model: Path, bank: Path, tmp_path: Path) -> None:
    """Exit code 130; the record is closed as it is for `run`."""
    record = tmp_path / "trace.jsonl"
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 480, "--record", record
    process = start("chat", *flags, "--no-doctor", home=tmp_path, stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(PROMPT + "\n" * 2)
    process.stdin.close()
    process.stdin = None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert told.endswith("\nemowatch: interrupted\n")
    assert Trace.load(record).complete


def test_ctrl_c_while_the_model_speaks_ends_the_reply(
    model: Path, bank: Path, tmp_path: Path
) -> None:
    """Exit code 130; what was written is whole lines, and the record is closed."""
    record = tmp_path / "trace.jsonl"
    flags = "--model", model, "--probe", bank, "--json", "--record", record
    process = start("run", PROMPT, *flags, "--max-new-tokens", 480, home=tmp_path)
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    lines = [json.loads(line) for line in (first + rest).splitlines()]
    assert 0 < len(lines) < 480
    assert {line["type"] for line in lines} == {"token"}
    assert Trace.load(record).complete


GONE = 141
"""What shells say of a tool whose reader has left: 128 and the number of SIGPIPE."""


def leave_early(process: subprocess.Popen[str], lines: int = 0) -> tuple[list[str], str]:
    """Read a few lines of stdout, close it as `head` does, and give them with stderr."""
    assert process.stdout is not None and process.stderr is not None
    read = [process.stdout.readline() for _ in range(lines)]
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=PATIENCE_S)
    return read, told


def test_a_reader_that_leaves_early_is_no_error_worth_words(
    model: Path, bank: Path, tmp_path: Path
) -> None:
    """`emowatch run … --json | head -1` prints one line and nothing else; the record is whole."""
    record = tmp_path / "trace.jsonl"
    flags = "--model", model, "--probe", bank, "--json", "--max-new-tokens", 300
    process = start("run", PROMPT, *flags, "--record", record, "--no-doctor", home=tmp_path)
    (line,), told = leave_early(process, 1)
    assert json.loads(line)["type"] == "token"
    assert process.returncode == GONE
    assert "extrapolated" in told.splitlines()[0]  # the bank reads means: said before the reply
    assert len(told.splitlines()) == 1
    assert Trace.load(record).complete


@pytest.mark.parametrize("arguments", [("probes",), ("--help",), ("plugins", "--json")])
def test_any_command_bears_a_reader_that_never_reads(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """Help is answered on another path than commands."""
    process = start(*arguments, home=tmp_path)
    assert leave_early(process) == ([], "")
    assert process.returncode == GONE


def test_an_evaluation_bears_a_reader_that_leaves(
    model: Path, data: Path, bank: Path, tmp_path: Path
) -> None:
    """Its narration goes on; the one line of data finds nobody."""
    process = start("evaluate", bank, data / "test.tsv", "--model", model, "--json", home=tmp_path)
    _, told = leave_early(process)
    assert process.returncode == GONE, told
    assert "Traceback" not in told and "BrokenPipe" not in told


def test_training_whose_narration_nobody_reads_ends_quietly(
    model: Path, data: Path, tmp_path: Path
) -> None:
    """`emowatch train … 2>&1 | head -1`."""
    process = start(
        *("train", data / "train.tsv", "--model", model, "--out", tmp_path / "mood"),
        home=tmp_path,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("72 examples")
    process.stdout.close()
    assert process.wait(timeout=PATIENCE_S) == GONE


def test_an_error_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    """The sentence itself meets a broken pipe."""
    process = start("probes", "show", "nope", home=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stderr.close()
    assert process.stdout.read() == ""
    process.stdout.close()
    assert process.wait(timeout=PATIENCE_S) == GONE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path) -> None:
    """/dev/full is one for whoever writes to it."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = start("plugins", home=tmp_path, stdout=full)
        _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert told == "emowatch: Could not read or write the output: No space left on device.\n"


def test_a_closed_stdout_is_no_error(model: Path, bank: Path, tmp_path: Path) -> None:
    """As after `>&-`: somebody wants the record only."""
    record = tmp_path / "trace.jsonl"
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 3, "--record", record
    shell = 'exec "$0" "$@" >&-'
    command = [sys.executable, "-c", "from emowatch.cli import main; main()", "run", PROMPT]
    done = subprocess.run(
        ["sh", "-c", shell, *command, *map(str, flags)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Trace.load(record).complete


QUICK = "import time; time.sleep = lambda s: None; from emowatch.cli import main; main()"
"""The hub's client waits 23 s between its tries."""


@pytest.mark.parametrize("arguments", [("doctor", "owner/name"), ("probes", "show", "owner/name")])
def test_a_hub_that_does_not_answer_is_told_in_our_words_only(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """Its client logs two lines for each of six tries; the connection here is really refused."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EMOWATCH_", "HF_"))}
    done = subprocess.run(
        [sys.executable, "-c", QUICK, *arguments],
        env=environment
        | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    waiting, said = done.stderr.splitlines()
    assert waiting == "the hub does not answer and is asked again a few times; Ctrl+C gives up"
    assert said.startswith("emowatch: Could not ") and "'owner/name'" in said


def test_bytes_that_are_no_text_are_told_whatever_the_locale(
    model: Path, bank: Path, tmp_path: Path
) -> None:
    """Most locales make Python refuse such a line with a traceback; the next is answered."""
    said = f"caf\xe9\n{PROMPT}\n".encode("latin-1")
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 2
    done = subprocess.run(
        [sys.executable, "-c", "from emowatch.cli import main; main()", "chat", *map(str, flags)],
        env=os.environ
        | {"PYTHONIOENCODING": "utf-8:strict", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        input=said,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    told = done.stderr.decode()
    assert done.returncode == 2, told
    assert "line 1 was not answered. It is no UTF-8 text." in told
    assert "Traceback" not in told
    assert done.stdout


INTERRUPTED_IN = """
import os, signal, sys

wanted = sys.argv.pop(1)

def finger(frame, event, argument):
    if event == "call" and frame.f_code.co_name == wanted:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.setprofile(finger)
from emowatch.cli import main
main()
"""
"""Presses Ctrl+C when a function is called."""


@pytest.mark.parametrize(
    ("command", "function"),
    [("doctor", "runs_statically"), ("train", "_losses"), ("run", "from_pretrained")],
)
def test_ctrl_c_inside_a_long_step_is_told_in_words(
    command: str, function: str, model: Path, bank: Path, data: Path, tmp_path: Path
) -> None:
    """While a model is examined, heads are fitted, a model is loaded."""
    arguments: dict[str, tuple[object, ...]] = {
        "doctor": (model,),
        "train": (data / "train.tsv", "--model", model, "--out", tmp_path / "mood"),
        "run": (PROMPT, "--model", model, "--probe", bank),
    }
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN, function, command, *map(str, arguments[command])],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("\nemowatch: interrupted\n")
    assert not (tmp_path / "mood" / "probe.safetensors").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such terminals")
def test_a_chat_in_a_terminal_opens_answers_and_gives_it_back(
    model: Path, bank: Path, tmp_path: Path
) -> None:
    """Through a real pseudo-terminal: what Textual's own pilot leaves out."""
    import fcntl
    import pty
    import struct
    import termios

    keeper, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    before = termios.tcgetattr(terminal)
    flags = "--model", model, "--probe", bank, "--max-new-tokens", 3
    process = start(
        *("chat", *flags), home=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal
    )
    screen = b""

    def until(shown: bytes) -> None:
        nonlocal screen
        deadline = time.monotonic() + PATIENCE_S
        while shown not in screen and time.monotonic() < deadline:
            assert process.poll() is None, screen[-2000:]
            if select.select([keeper], [], [], 0.2)[0]:
                screen += os.read(keeper, 65536)
        assert shown in screen

    until(b"\x1b[?1049h")  # the other screen
    until(b"mood")  # the bank's traces
    os.write(keeper, b"hello\r")
    until(b"hello")
    until(b"3 tokens")
    os.write(keeper, b"\x11")  # Ctrl+Q
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([keeper], [], [], 0.2)[0]:
            screen += os.read(keeper, 65536)
    assert process.wait(timeout=5) == 0
    while select.select([keeper], [], [], 0.2)[0]:
        screen += os.read(keeper, 65536)
    assert b"\x1b[?1049l" in screen  # the first screen again
    assert termios.tcgetattr(terminal) == before
    os.close(keeper)
    os.close(terminal)
