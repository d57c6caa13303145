"""Check that a plugin keeps the contract of the hooks, before it meets a model.

from emowatch.conformance import check_plugin

assert not [check for check in check_plugin(MyPlugin) if not check.passed]
"""

from emowatch.conformance.checks import PluginCheck, check_plugin, recorded_trace
from emowatch.conformance.finding import find_plugin

__all__ = ["PluginCheck", "check_plugin", "find_plugin", "recorded_trace"]
