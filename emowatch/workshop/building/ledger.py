"""Answers on disk, so that none is paid for twice.

One JSON line each, written before the answer counts. The first line says whose answers they are:
the task, its template, and the model with its settings. A line that a kill left torn is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from emowatch.errors import TrainingError, UsageError
from emowatch.text import clean_line
from emowatch.workshop.building.answering import Answer, Messages

SCHEMA = 1
SYNC_S = 1.0
"""A machine that loses power loses the answers of at most this long; a killed process, none."""


def key_of(identity: Mapping[str, Any], messages: Messages, item: str = "") -> str:
    """Name an answer by what it depends on; `item` tells equal prompts apart."""
    told = json.dumps([dict(identity), [dict(m) for m in messages], item], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


class Ledger:
    """The answers of one job.

    Attributes:
        path: the file.
        prompt_tokens: of all answers held.
        completion_tokens: of all answers held.
        estimated: how many answers nobody counted the tokens of.
    """

    def __init__(self, path: Path, out: IO[bytes], answers: dict[str, Answer]) -> None:
        """Take an open file and what it holds; `open_ledger` makes one."""
        self.path = path
        self._out = out
        self._answers: dict[str, Answer] = {}
        self._synced = time.monotonic()
        self.prompt_tokens = self.completion_tokens = self.estimated = 0
        for key, answer in answers.items():
            self._count(key, answer)

    def __len__(self) -> int:
        """Count the answers."""
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """Give the answer to a prompt, where there is one."""
        return self._answers.get(key)

    def add(self, key: str, answer: Answer) -> None:
        """Write an answer; when this returns, it outlives the process."""
        line = json.dumps({"key": key, **asdict(answer)})
        self._out.write(line.encode() + b"\n")
        self._out.flush()
        if time.monotonic() - self._synced >= SYNC_S:
            self.sync()
        self._count(key, answer)

    def sync(self) -> None:
        """Let the answers outlive the machine's power, too."""
        os.fsync(self._out.fileno())
        self._synced = time.monotonic()

    def _count(self, key: str, answer: Answer) -> None:
        self._answers[key] = answer
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        self.estimated += not answer.is_counted


@contextmanager
def open_ledger(path: Path, job: Mapping[str, Any]) -> Iterator[Ledger]:
    """Open the answers of `job`, made if they are not there; the folder must be held.

    Raises:
        UsageError: if the file holds the answers of another job.
        TrainingError: if it is damaged or cannot be written.
    """
    first = json.dumps({"ledger": SCHEMA, "job": dict(job)}, sort_keys=True).encode() + b"\n"
    answers = _read(path, first)
    try:
        out = path.open("ab")
    except OSError as error:
        raise TrainingError(
            f"Could not write answers to {clean_line(str(path))!r}: {error.strerror}. Choose "
            "another folder with --work."
        ) from error
    with out:
        if out.tell() == 0:
            out.write(first)
            out.flush()
        ledger = Ledger(path, out, answers)
        try:
            yield ledger
        finally:
            ledger.sync()


def _read(path: Path, first: bytes) -> dict[str, Answer]:
    if not path.exists():
        return {}
    shown = clean_line(str(path))
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        torn = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if torn:  # by a kill: asked again
            os.truncate(path, sum(map(len, lines)))
    except OSError as error:
        raise TrainingError(
            f"Could not read the answers in {shown!r}: {error.strerror}."
        ) from error
    if len(lines) == 1 and lines[0] != first:  # a job that was never answered, as with no key
        path.unlink()
        return {}
    if lines and lines[0] != first:
        raise UsageError(
            f"Could not use the answers in {shown!r}: they are those of "
            f"{_difference(lines[0], first)}. Choose another --out or --work, or remove the file."
        )
    answers = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            row = json.loads(line)
            key = str(row.pop("key"))
            answers[key] = Answer(**row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TrainingError(
                f"Could not use the answers in {shown!r}: line {number} is damaged. Remove that "
                "line; its prompt is asked again."
            ) from error
    return answers


def _difference(found: bytes, wanted: bytes) -> str:
    """Say in what another job differs."""
    try:
        theirs, ours = json.loads(found)["job"], json.loads(wanted)["job"]
        names = [name for name in ours if theirs.get(name) != ours[name]]
    except (ValueError, LookupError, TypeError, AttributeError):
        return "another program or version"
    return f"another {' and '.join(names)}" if names else "another version"
