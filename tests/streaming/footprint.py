"""What a process holds: threads, hooks, descriptors, callbacks, objects, memory."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import threading
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import nn

from tests.model.zoo import hook_count

_SELF = Path("/proc/self")
HAS_PROC = (_SELF / "statm").exists()
"""Whether descriptors and memory can be asked for; on Linux only."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What is held after a full collection."""

    threads: int
    hooks: int
    at_exit: int
    """Callbacks that wait for the interpreter's end."""
    files: int
    """Open descriptors; 0 where they cannot be counted."""
    objects: int
    """Objects that the garbage collector knows."""
    python_bytes: int
    """What Python has allocated; 0 where tracemalloc is off."""
    resident_bytes: int
    """What the process has in memory; 0 where it cannot be told."""

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Take it now."""
        gc.collect()
        _give_back()
        resident = 0
        if HAS_PROC:
            pages = int((_SELF / "statm").read_text().split()[1])
            resident = pages * os.sysconf("SC_PAGE_SIZE")
        return cls(
            threads=threading.active_count(),
            hooks=hook_count(model),
            at_exit=atexit._ncallbacks(),
            files=len(os.listdir(_SELF / "fd")) if HAS_PROC else 0,
            objects=len(gc.get_objects()),
            python_bytes=tracemalloc.get_traced_memory()[0],
            resident_bytes=resident,
        )

    def since(self, before: Footprint) -> str:
        """Say what changed."""
        return (
            f"threads {self.threads - before.threads:+}, hooks {self.hooks - before.hooks:+}, "
            f"exit callbacks {self.at_exit - before.at_exit:+}, "
            f"files {self.files - before.files:+}, "
            f"objects {self.objects - before.objects:+} of {self.objects}, "
            f"Python {(self.python_bytes - before.python_bytes) / 1e3:+.1f} kB, "
            f"resident {(self.resident_bytes - before.resident_bytes) / 1e6:+.2f} MB"
        )

    def holds_as_much(self, before: Footprint) -> bool:
        """Tell whether what can be counted one by one is what it was."""
        return (self.threads, self.hooks, self.at_exit, self.files) == (
            before.threads,
            before.hooks,
            before.at_exit,
            before.files,
        )


def _give_back() -> None:
    """Let glibc give back what it keeps for the next allocation: some MB, in steps of 3."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if HAS_PROC else None
    if trim is not None:
        trim(0)
