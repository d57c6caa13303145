"""What is known of a reply while it is spoken and afterwards, however it is read."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

from emowatch.errors import UsageError
from emowatch.outbox import Counts
from emowatch.records import Alarm, SteeringChange, Turn
from emowatch.streaming.worker import Worker
from emowatch.trace import Trace
from emowatch.watching import Watch


class StreamedReply:
    """The reply that a worker makes. When nobody holds it any more, the model stops."""

    def __init__(self, worker: Worker) -> None:
        """Take the worker, which must not know this object."""
        self._worker = worker
        # It only asks: whoever drops the last reference must not wait for a token.
        weakref.finalize(self, worker.cancel).atexit = False

    @property
    def trace(self) -> Trace:
        """What was scored so far.

        Raises:
            UsageError: if an async stream has not begun.
        """
        return self._watch.trace

    @property
    def turn(self) -> Turn | None:
        """The finished turn; `None` while the reply runs, or where it was cancelled unbegun."""
        since = self._worker.turns_before
        turns = [] if since is None else self._watch.trace.turns[since : since + 1]
        return turns[0] if turns else None

    @property
    def alarms(self) -> Sequence[Alarm]:
        """The alarms of this reply so far, oldest first."""
        if self._worker.turns_before is None:
            return []
        return self._watch.trace.alarms[self._worker.alarms_before :]

    @property
    def steerings(self) -> Sequence[SteeringChange]:
        """What was done to the residual during this reply so far, change by change."""
        if self._worker.turns_before is None:
            return []
        return self._watch.trace.steerings[self._worker.steerings_before :]

    @property
    def plugin_failures(self) -> Mapping[str, int]:
        """How often each plugin failed; a plugin that failed is off."""
        return {} if self._worker.watcher is None else self._watch.plugins.errors

    def flush_plugins(self) -> Mapping[str, Counts]:
        """Wait, for 5 s at most, until plugins behind queues have heard all of it.

        Returns:
            What became of the calls of each such plugin.
        """
        if self._worker.watcher is None:
            return {}
        self._watch.plugins.flush(self._watch.session)
        return self._watch.plugins.counts

    def cancel(self) -> None:
        """Ask the model to stop after the token it is at; tokens already made still come."""
        self._worker.cancel()

    @property
    def _watch(self) -> Watch:
        if self._worker.watcher is None:
            raise UsageError(
                "The stream has not begun, so there is no trace yet. Enter it with `async with`, "
                "or await its first token."
            )
        return self._worker.watcher
