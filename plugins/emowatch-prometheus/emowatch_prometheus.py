"""Show what is scored as Prometheus metrics, on an address of this machine.

No metric carries a user, a conversation or a text; labels are names of models, probes and emotions.
"""

from __future__ import annotations

from threading import Thread
from typing import Any, get_args
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from emowatch import Alarm, Session, TokenScore, Turn, hookimpl
from emowatch.records import FinishReason
from emowatch.text import clean_line

BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
REASONS = get_args(FinishReason)


class Prometheus:
    """Serves ``/metrics`` from the first session until the plugin is dropped."""

    can_wait = True

    def __init__(self, port: int | str = 9464, address: str = "127.0.0.1") -> None:
        """Open the port, so that one that is taken is known at once.

        Args:
            port: where to listen; 0 takes a free one, which `port` then names.
            address: of this machine; another than 127.0.0.1 shows the metrics to others.

        Raises:
            ValueError: for a port that is none, or taken.
        """
        number = int(port) if str(port).isdecimal() else -1
        if not 0 <= number < 65536:
            raise ValueError(f"The option 'port' must be 0 to 65535, got {clean_line(repr(port))}.")
        self.registry = CollectorRegistry()
        self._server: WSGIServer
        self._thread: Thread
        try:
            self._server, self._thread = start_http_server(number, address, self.registry)
        except OSError as error:
            raise ValueError(
                f"Could not listen on port {number} of {clean_line(address)}: {error.strerror}. "
                "port=0 takes a free one."
            ) from error
        self.port = int(self._server.server_port)
        self._tokens = self._counter("tokens", "Scored tokens of replies", "model", "probe")
        self._turns = self._counter("turns", "Replies by how they ended", "model", "finish_reason")
        self._alarms = self._counter("alarms", "Alarms", "model", "emotion", "level")
        self._errors = self._counter("plugin_errors", "Plugins switched off", "plugin", "hook")
        names = ("emotion", "probe", "model")
        self._scores = Histogram(
            "emowatch_emotion_score",
            "Scores of the tokens of replies",
            names,
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._means = Gauge(
            "emowatch_turn_emotion_mean_ratio",
            "Mean score over the last finished reply",
            names,
            registry=self.registry,
        )
        self._model = ""
        self._bound: dict[str, list[Any]] = {}

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Make every series that can come, so that zeros show."""
        self._model = clean_line(session.model)
        self._bound.clear()
        for bank in session.banks:
            probe = clean_line(bank.name)
            self._tokens.labels(self._model, probe)
            self._bound[bank.name] = [
                self._scores.labels(clean_line(label), probe, self._model) for label in bank.labels
            ]
        for reason in REASONS:
            self._turns.labels(self._model, reason)

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Count a token of a reply."""
        if score.offset is None:
            return
        for series, value in zip(self._bound[score.bank], score.scores.array.tolist(), strict=True):
            if value == value:
                series.observe(value)
        self._tokens.labels(self._model, clean_line(score.bank)).inc()

    @hookimpl
    def alarm_raised(self, alarm: Alarm) -> None:
        """Count an alarm; not by its rule, whose text may hold numbers and never come again."""
        self._alarms.labels(self._model, clean_line(alarm.label), alarm.level).inc()

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Count a reply, and show its means."""
        self._turns.labels(self._model, turn.finish_reason).inc()
        for bank, scores in turn.mean_scores.items():
            for label, value in scores.items():
                self._means.labels(clean_line(label), clean_line(bank), self._model).set(value)

    @hookimpl
    def plugin_failed(self, name: str, hook: str) -> None:
        """Count another plugin that was switched off."""
        self._errors.labels(clean_line(name), clean_line(hook)).inc()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"emowatch_{name}", says, labels, registry=self.registry)
