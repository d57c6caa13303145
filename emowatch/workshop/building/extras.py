"""Libraries of the extra ``corpus``, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from emowatch.errors import UsageError


def import_corpus_extra(module: str, purpose: str) -> ModuleType:
    """Import a module of the extra ``corpus``.

    Raises:
        UsageError: saying in one line how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise UsageError(f'{purpose} needs {name}: pip install "emowatch[corpus]"') from error
