"""Write what somebody begins with: a plugin's distribution that passes its own tests."""

from emowatch.scaffold.writing import write_plugin

__all__ = ["write_plugin"]
