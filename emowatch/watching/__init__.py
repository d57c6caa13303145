"""The loop from ``generate`` to plugins: read, score, keep, tell, steer.

Positions decide, never call counts: what a forward read follows from its attention mask.
"""

from emowatch.watching.session import ProbeSource, Watch, watch

__all__ = ["ProbeSource", "Watch", "watch"]
