"""What a session left behind: token scores, alarms, steering, turns; in memory or as JSON lines.

A trace needs no model and no torch. `Trace.load` reads what the plugin ``jsonl-log`` wrote.
"""

from emowatch.trace.lines import SCHEMA
from emowatch.trace.recorded import Trace
from emowatch.trace.tokens import TokenTable

__all__ = ["SCHEMA", "TokenTable", "Trace"]
