"""The lock of a folder: one run at a time, and nothing is left that could lock anybody out."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from emowatch.errors import RetryableError, TrainingError
from emowatch.workshop.locking import LOCK, alone


def test_a_second_run_is_refused_in_words_and_changes_nothing(tmp_path: Path) -> None:
    """It may be tried again, which is what its exit code says."""
    with alone(tmp_path):
        for _ in range(2):
            with pytest.raises(RetryableError, match=r"another run is writing there\. Wait"):
                with alone(tmp_path):
                    pytest.fail("two runs hold one folder")
        with alone(tmp_path / "another"):
            pass
        assert (tmp_path / LOCK).exists()
    with alone(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


def test_a_run_that_fails_lets_go(tmp_path: Path) -> None:
    """The next one starts where it ended."""
    with pytest.raises(KeyboardInterrupt), alone(tmp_path):
        raise KeyboardInterrupt
    with alone(tmp_path):
        pass


def test_a_lock_file_that_was_left_behind_locks_nothing(tmp_path: Path) -> None:
    """A kill leaves one; it is the process that holds a folder, not the file."""
    (tmp_path / LOCK).touch()
    with alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_on_a_file_that_was_removed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may end between opening and locking; then two would hold two files."""
    flock = fcntl.flock
    locked: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        if not locked:
            (tmp_path / LOCK).unlink()
        locked.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with alone(tmp_path):
        assert len(locked) == 2
        with pytest.raises(RetryableError), alone(tmp_path):
            pytest.fail("two runs hold one folder")


def test_a_file_system_without_locks_is_worked_on_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network disks know none; there nothing keeps two runs apart, as the docs say."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone(tmp_path), alone(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands where it should be."""
    (tmp_path / "taken").touch()
    with pytest.raises(TrainingError, match=r"Could not write to .*Choose another folder"):
        with alone(tmp_path / "taken" / "deeper"):
            pytest.fail("there is no such folder")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """A program may train many banks in one process."""
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with alone(tmp_path), pytest.raises(RetryableError), alone(tmp_path):
            pytest.fail("two runs hold one folder")
    assert len(os.listdir("/dev/fd")) == before
