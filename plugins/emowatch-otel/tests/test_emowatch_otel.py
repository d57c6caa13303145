"""What an OTLP collector receives: real requests, decoded with the protocol's own messages."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from emowatch_otel import ALARM, RESULT, Otel
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from emowatch.conformance import check_plugin, recorded_trace
from emowatch.dispatch import Dispatcher
from emowatch.plugins import make_plugin_manager
from emowatch.replaying import replay
from emowatch.trace import Trace


class Collector:
    """Takes OTLP over HTTP as a collector does, and keeps what came."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.logs: list[Any] = []
        self.resources: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        """Decode one request."""
        if path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            for group in traces.resource_spans:
                self.resources.append(group.resource)
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
        else:
            assert path == "/v1/logs", path
            logs = ExportLogsServiceRequest.FromString(body)
            for group in logs.resource_logs:
                self.logs += [one for scope in group.scope_logs for one in scope.log_records]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector."""
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


def attributes(of: Any) -> dict[str, Any]:
    """Give the attributes of a span or record as plain values."""
    found = {}
    for pair in of.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        found[pair.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


def run(collector: Collector, trace: Trace | None = None) -> Trace:
    """Replay the recorded session, with its alarms."""
    known = trace or recorded_trace()
    plugin = Otel(collector.endpoint)
    alarm = ("threshold-alarm", {"threshold": 0.4, "consecutive": 2})
    replay(known, Dispatcher(make_plugin_manager([plugin, alarm]), on_error="raise"))
    plugin.close()
    return known


def test_each_reply_is_a_span_and_each_emotion_of_each_probe_a_result(
    collector: Collector,
) -> None:
    """With the means of the trace, inside the span of their reply."""
    trace = run(collector)
    assert len(collector.spans) == len(trace.turns)
    by_id = {span.span_id: attributes(span) for span in collector.spans}
    assert {span.name for span in collector.spans} == {f"chat {trace.session.model}"}
    for turn in trace.turns:
        (span,) = [
            one
            for one in by_id.values()
            if (one["emowatch.turn"], one["emowatch.sequence"]) == (turn.index, turn.sequence)
        ]
        assert span["gen_ai.usage.output_tokens"] == turn.reply_tokens
        assert span["gen_ai.response.finish_reasons"] == [turn.finish_reason]
        assert span["gen_ai.conversation.id"] == trace.session.id
    results = [one for one in collector.logs if one.event_name == RESULT]
    sent = {}
    for one in results:
        told, span = attributes(one), by_id[one.span_id]
        key = (
            span["emowatch.turn"],
            span["emowatch.sequence"],
            told["emowatch.probe.id"],
            told["gen_ai.evaluation.name"],
        )
        sent[key] = told["gen_ai.evaluation.score.value"]
    assert sent == {
        (turn.index, turn.sequence, bank, f"emowatch.{label}"): value
        for turn in trace.turns
        for bank, scores in turn.mean_scores.items()
        for label, value in scores.items()
    }
    assert len(results) == len(sent)
    (resource,) = {str(attributes(one)["service.name"]) for one in collector.resources}
    assert resource == "emowatch"


def test_alarms_are_sent_and_mark_the_result_of_their_emotion(collector: Collector) -> None:
    """A result of low cardinality: normal, elevated or alarm."""
    trace = run(collector)
    alarms = [attributes(one) for one in collector.logs if one.event_name == ALARM]
    assert len(alarms) == len(trace.alarms) > 0
    labels = [
        attributes(one)["gen_ai.evaluation.score.label"]
        for one in collector.logs
        if one.event_name == RESULT
    ]
    assert set(labels) <= {"normal", "elevated", "alarm"}
    raised = {(a.turn, a.sequence, a.bank, a.label) for a in trace.alarms}
    assert labels.count("alarm") == len(raised)


def test_no_text_and_nothing_for_a_token_is_sent(collector: Collector) -> None:
    """Ten thousand tokens must not become ten thousand records."""
    from dataclasses import replace

    trace = recorded_trace()
    trace.turns = [replace(turn, text="a canary", token_ids=(90210,)) for turn in trace.turns]
    run(collector, trace)
    told = str(collector.spans) + str(collector.logs)
    assert "canary" not in told and "90210" not in told
    means = sum(len(s) for turn in trace.turns for s in turn.mean_scores.values())
    assert len(collector.logs) == means + len(trace.alarms)


def test_it_keeps_the_contract(collector: Collector) -> None:
    """What is no number is left out, a reply that broke off ends its span."""
    made: list[Otel] = []

    def make() -> Otel:
        made.append(Otel(collector.endpoint))
        return made[-1]

    assert [check for check in check_plugin(make) if not check.passed] == []
    for one in made:
        one.close()
    assert any(attributes(s).get("error.type") == "interrupted" for s in collector.spans)


def test_a_collector_that_is_not_there_keeps_nobody_waiting_for_long() -> None:
    """The session ends within its five seconds."""
    plugin = Otel("http://127.0.0.1:9")
    started = time.monotonic()
    replay(recorded_trace(), Dispatcher(make_plugin_manager([plugin]), on_error="raise"))
    assert time.monotonic() - started < 5.5
