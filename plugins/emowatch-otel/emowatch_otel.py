"""Send what is scored to an OpenTelemetry collector, in the names of its GenAI conventions.

For each reply one span ``chat MODEL``, and for each emotion of each probe one event
``gen_ai.evaluation.result`` with its mean score. Never one for a token, and never a text. The
conventions are in development; the names stand in this file alone.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from emowatch import Alarm, Session, TokenScore, Turn, __version__, hookimpl
from emowatch.text import clean_line

RESULT = "gen_ai.evaluation.result"
ALARM = "emowatch.alarm"
ELEVATED = 0.5
"""A mean at or above which a label counts as elevated."""
TIMEOUT_S = 2.0
"""How long a collector may take for one batch, retries and all; the end of a session waits for one
of each kind."""


class Otel:
    """Exports over OTLP with HTTP; batches are sent from threads of the SDK."""

    can_wait = True

    def __init__(self, endpoint: str | None = None, service: str = "emowatch") -> None:
        """Prepare the exporters.

        Args:
            endpoint: base address of the collector, such as ``http://127.0.0.1:4318``; where it
                is left out, OpenTelemetry's own variables say, as ``OTEL_EXPORTER_OTLP_ENDPOINT``.
            service: ``service.name`` of the resource.
        """
        base = None if endpoint is None else endpoint.rstrip("/")
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._logs = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._tracers.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(endpoint=base and f"{base}/v1/traces", timeout=TIMEOUT_S)
            )
        )
        self._logs.add_log_record_processor(
            BatchLogRecordProcessor(
                OTLPLogExporter(endpoint=base and f"{base}/v1/logs", timeout=TIMEOUT_S)
            )
        )
        self._tracer = self._tracers.get_tracer("emowatch", __version__)
        self._logger = self._logs.get_logger("emowatch", __version__)
        self._session: Session
        self._spans: dict[tuple[int, int], trace.Span] = {}
        self._alarmed: set[tuple[int, int, str, str]] = set()

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Begin a conversation."""
        self._session = session
        self._spans.clear()
        self._alarmed.clear()

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Begin the span of a reply at its first token."""
        if (score.turn, score.sequence) not in self._spans:
            self._span(score.turn, score.sequence)

    @hookimpl
    def alarm_raised(self, alarm: Alarm) -> None:
        """Send an alarm inside the span of its reply."""
        self._alarmed.add((alarm.turn, alarm.sequence, alarm.bank, alarm.label))
        self._emit(
            ALARM,
            self._span(alarm.turn, alarm.sequence),
            {
                "emowatch.alarm.rule": clean_line(alarm.rule, 200),
                "emowatch.alarm.level": alarm.level,
                "emowatch.offset": alarm.offset,
                "gen_ai.evaluation.name": f"emowatch.{clean_line(alarm.label)}",
                "gen_ai.evaluation.score.value": _number(alarm.score),
            },
            severity=SeverityNumber.WARN,
        )

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """End the span, with one result for each emotion of each probe."""
        span = self._span(turn.index, turn.sequence)
        settings = turn.settings
        attributes = {
            "gen_ai.usage.input_tokens": turn.prompt_tokens,
            "gen_ai.usage.output_tokens": turn.reply_tokens,
            "gen_ai.response.finish_reasons": [turn.finish_reason],
            "gen_ai.request.temperature": settings.get("temperature"),
            "gen_ai.request.max_tokens": settings.get("max_new_tokens"),
            "gen_ai.request.seed": settings.get("seed"),
        }
        span.set_attributes({k: v for k, v in attributes.items() if _is_attribute(v)})
        if turn.finish_reason == "failed":
            span.set_attribute("error.type", "generation_failed")
            span.set_status(trace.StatusCode.ERROR)
        known = {bank.name: bank for bank in self._session.banks}
        for name, scores in turn.mean_scores.items():
            bank = known[name]
            for label, value in scores.items():
                raised = (turn.index, turn.sequence, name, label) in self._alarmed
                self._emit(
                    RESULT,
                    span,
                    {
                        "gen_ai.evaluation.name": f"emowatch.{clean_line(label)}",
                        "gen_ai.evaluation.score.value": _number(value),
                        "gen_ai.evaluation.score.label": (
                            "alarm" if raised else "elevated" if value >= ELEVATED else "normal"
                        ),
                        "emowatch.probe.id": clean_line(name),
                        "emowatch.probe.sha256": bank.sha256,
                        "emowatch.layer": bank.primary,
                    },
                )
        span.end()
        self._spans.pop((turn.index, turn.sequence), None)

    @hookimpl
    def session_finished(self) -> None:
        """End what a broken-off reply left open, and send what waits, as long as there is time."""
        for span in self._spans.values():
            span.set_attribute("error.type", "interrupted")
            span.end()
        self._spans.clear()
        self._tracers.force_flush(round(1000 * TIMEOUT_S))
        self._logs.force_flush(round(1000 * TIMEOUT_S))

    def close(self) -> None:
        """End the threads of the SDK."""
        self._tracers.shutdown()
        self._logs.shutdown()

    def _span(self, turn: int, sequence: int) -> trace.Span:
        found = self._spans.get((turn, sequence))
        if found is None:
            model = clean_line(self._session.model, 120)
            found = self._spans[turn, sequence] = self._tracer.start_span(
                f"chat {model}",
                attributes={
                    "gen_ai.operation.name": "chat",
                    "gen_ai.provider.name": "transformers",
                    "gen_ai.request.model": model,
                    "gen_ai.conversation.id": clean_line(self._session.id),
                    "emowatch.turn": turn,
                    "emowatch.sequence": sequence,
                },
            )
        return found

    def _emit(
        self,
        event: str,
        span: trace.Span,
        attributes: dict[str, Any],
        severity: SeverityNumber = SeverityNumber.INFO,
    ) -> None:
        self._logger.emit(
            event_name=event,
            context=trace.set_span_in_context(span),
            severity_number=severity,
            attributes={k: v for k, v in attributes.items() if v is not None},
        )


def _number(value: float) -> float | None:
    return value if value - value == 0 else None


def _is_attribute(value: Any) -> bool:
    return isinstance(value, str | bool | int | float | list)
