"""What the tests of the workshop share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread: for tensors this small, several wait for each other."""
    torch = sys.modules.get("torch")  # tests of corpora never load it
    before = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(1)
    yield
    if torch:
        torch.set_num_threads(before)
