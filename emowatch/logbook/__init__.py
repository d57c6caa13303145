"""The log of sessions in one SQLite file: who writes it and who reads it know the same tables."""

from emowatch.logbook.reading import Asked, LoggedTurn, read_turns
from emowatch.logbook.schema import connect, default_path

__all__ = ["Asked", "LoggedTurn", "connect", "default_path", "read_turns"]
