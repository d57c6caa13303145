"""Running commands in this process and in others, and looking at what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-c", "from emowatch.cli import main; main()")
PROMPT = "I lost my dog today"
FLAGS = "--readout", "mean", "--no-template", "--head", "linear"
PATIENCE_S = 300
"""A process of its own starts in 5 s here, and in minutes where others take the processor."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


def objects(done: Done) -> list[dict[str, Any]]:
    """Parse every line of stdout."""
    return [json.loads(line) for line in done.out.splitlines()]


def refused(done: Done, *words: str, code: int = 2) -> None:
    """Check that one sentence on stderr says what is wrong, and stdout nothing."""
    assert done.code == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    told = [line for line in done.err.splitlines() if line.startswith(("emowatch: ", "Error: "))]
    assert len(told) == 1, done.err
    for word in words:
        assert word in told[0], told[0]


def _hear_ctrl_c() -> None:
    """Undo what a shell does to background jobs, whose children would ignore SIGINT too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object, home: Path, **streams: Any) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("EMOWATCH_")}
    own = {"EMOWATCH_HOME": str(home), "EMOWATCH_LOAD_PLUGINS": "", "HF_HUB_OFFLINE": "1"}
    own["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=inherited | own,
        text=True,
        preexec_fn=_hear_ctrl_c,
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **streams,
        },
    )
