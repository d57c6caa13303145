"""Every error that emowatch raises on purpose.

A message says what failed, with the value; why; and what to do next. The command line maps
`exit_code` once, in one place.
"""

from __future__ import annotations


class EmowatchError(Exception):
    """Base of all errors that emowatch raises on purpose."""

    exit_code = 1


class UsageError(EmowatchError):
    """An option or argument that cannot be used."""

    exit_code = 2


class ConfigError(EmowatchError):
    """A settings file that cannot be read, or says what cannot be used."""

    exit_code = 2


class ContextError(UsageError):
    """A dialogue that leaves no room for a reply in the model's context."""


class CorpusError(EmowatchError):
    """Labelled text that cannot be used as it is."""

    exit_code = 2


class ProbeFormatError(EmowatchError):
    """A bank file that is damaged, hostile, or of a schema this version does not read."""

    exit_code = 2


class ProbeMismatchError(EmowatchError):
    """A sound bank for another model, or for other layers, than the one at hand."""

    exit_code = 2


class ModelError(EmowatchError):
    """A model or tokenizer that cannot be loaded or read."""

    exit_code = 2


class RetryableError(EmowatchError):
    """A failure that may pass by itself, such as the network."""

    exit_code = 3


class UnsupportedError(EmowatchError):
    """A way of decoding or a model that emowatch refuses rather than read wrongly."""

    exit_code = 2


class TapError(EmowatchError):
    """A hook that did not fire, or fired with a tensor of the wrong shape."""


class PluginError(EmowatchError):
    """A plugin that cannot be found or loaded, or failed under ``on_plugin_error="raise"``."""

    exit_code = 2


class ExpressionError(EmowatchError):
    """An expression about a trace that cannot be read, or asks for what is not there."""

    exit_code = 2


class BaselineError(EmowatchError):
    """A baseline of drift that cannot be made or read."""

    exit_code = 2


class VectorsError(EmowatchError):
    """A file of directions that cannot be made, read or used."""

    exit_code = 2


class TuningError(EmowatchError):
    """A governor's tuning that cannot be made or read."""

    exit_code = 2


class TraceError(EmowatchError):
    """A trace that cannot be read."""

    exit_code = 2


class LogError(EmowatchError):
    """A log of sessions that cannot be opened or read."""

    exit_code = 2


class TrainingError(EmowatchError):
    """A training or extraction run that cannot go on."""


class StudyError(EmowatchError):
    """A study that cannot be done on these texts or this model, or whose own checks failed."""
