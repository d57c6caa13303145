"""Small tensors here too."""

from tests.workshop.conftest import one_thread

__all__ = ["one_thread"]
