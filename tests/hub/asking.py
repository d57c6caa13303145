"""Asking a hub on this machine, in processes that know no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub.server import Hub

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 300
"""For one process. It takes some 10 s here, and far longer where others have the processor."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a process is to do: see `tests.hub.driver`."""

    what: str
    positional: tuple[Any, ...]
    named: dict[str, Any]


def step(what: str, *positional: Any, **named: Any) -> Step:
    """Name a thing to do."""
    return Step(what, positional, named)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one thing."""

    value: Any = None
    error: str = ""
    """Name of the kind; ``fault`` for one that no user should see."""
    told: str = ""
    out: str = ""
    err: str = ""


Answers = dict[str, Answer]


@dataclass(frozen=True, slots=True)
class Place:
    """The hub, and the folder where its clients keep what they fetch."""

    hub: Hub
    folder: Path

    def do(self, steps: dict[str, Step], **environment: str) -> Answers:
        """Do several things in one process that has no way out to any other hub.

        The hub of the tests is its proxy too, and refuses whatever is not asked of itself.
        """
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("EMOWATCH_", "HF_", "HUGGING", "TRANSFORMERS_", "DATASETS_"))
            and not key.lower().endswith("_proxy")
        }
        proxies = {f"{kind}_proxy": self.hub.url for kind in ("http", "https", "all")}
        own = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "home"),
            "EMOWATCH_HOME": str(self.folder / "emowatch"),
            "EMOWATCH_LOAD_PLUGINS": "",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.getenv("PYTHONPATH")))),
            "no_proxy": "127.0.0.1",
        }
        told = {key: [one.what, one.positional, one.named] for key, one in steps.items()}
        done = subprocess.run(
            [sys.executable, "-m", "tests.hub.driver", str(self.folder)],
            cwd=self.folder,
            env=inherited | proxies | own | environment,
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers = json.loads((self.folder / "answers.json").read_text(encoding="utf-8"))
        return {key: Answer(**answer) for key, answer in answers.items()}


def refused(answer: Answer, *words: str, code: int | None = None) -> None:
    """Check that one line says what is wrong: on stderr of a command, else in an error of ours."""
    told = answer.told
    if code is not None:
        assert answer.value == code, answer
        assert answer.out == ""
        (line,) = answer.err.splitlines()
        assert line.startswith("emowatch: "), line
        told = line
    else:
        assert answer.error not in ("", "fault"), answer
        assert answer.err == ""
    assert "\n" not in told
    assert len(told) < 500
    for word in words:
        assert word in told, told
