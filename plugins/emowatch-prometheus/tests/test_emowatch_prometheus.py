"""A scraped ``/metrics``: what it shows, what it never shows, and who may ask."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from emowatch_prometheus import Prometheus
from prometheus_client.parser import text_string_to_metric_families

from emowatch.conformance import check_plugin, recorded_trace
from emowatch.dispatch import Dispatcher
from emowatch.plugins import make_plugin_manager
from emowatch.replaying import replay


@pytest.fixture
def plugin() -> Iterator[Prometheus]:
    """Listen on a free port."""
    made = Prometheus(port=0)
    yield made
    made.close()


def scraped(plugin: Prometheus) -> dict[tuple[str, ...], float]:
    """Ask over HTTP, as Prometheus does, and read the answer with its own parser."""
    with urlopen(f"http://127.0.0.1:{plugin.port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_session_is_counted_as_it_was(plugin: Prometheus) -> None:
    """Tokens, replies, alarms, means: those of the recorded trace."""
    trace = recorded_trace()
    alarm = ("threshold-alarm", {"threshold": 0.4, "consecutive": 2})
    replay(trace, Dispatcher(make_plugin_manager([plugin, alarm]), on_error="raise"))
    found = scraped(plugin)
    model = trace.session.model
    for name, table in trace.by_bank.items():
        tokens = sum(score.offset is not None for score in table)
        assert found["emowatch_tokens_total", *sorted((model, name))] == tokens
        count = found["emowatch_emotion_score_count", *sorted(("joy", name, model))]
        assert count == tokens
    ended = [turn.finish_reason for turn in trace.turns]
    for reason in ("stop", "length", "cancelled", "failed"):
        key = ("emowatch_turns_total", *sorted((model, reason)))
        assert found[key] == ended.count(reason)  # type: ignore[arg-type]
    raised = sum(v for key, v in found.items() if key[0] == "emowatch_alarms_total")
    assert raised == len(trace.alarms)
    last = trace.turns[-1].mean_scores
    for bank, scores in last.items():
        key = ("emowatch_turn_emotion_mean_ratio", *sorted(("joy", bank, model)))
        assert found[key] == pytest.approx(scores["joy"], abs=1e-6)


def test_it_keeps_the_contract() -> None:
    """Each time on a port of its own."""
    made: list[Prometheus] = []

    def make() -> Prometheus:
        made.append(Prometheus(port=0))
        return made[-1]

    assert [check for check in check_plugin(make) if not check.passed] == []
    for one in made:
        one.close()


def test_only_this_machine_may_ask_by_default(plugin: Prometheus) -> None:
    """The library's own default is every address."""
    assert plugin._server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("port", ["x", -1, 65536, ""])
def test_a_port_that_is_none_is_refused(port: object) -> None:
    """In a sentence."""
    with pytest.raises(ValueError, match="0 to 65535"):
        Prometheus(port=port)  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_known_at_once(plugin: Prometheus) -> None:
    """Before a word is spoken."""
    with pytest.raises(ValueError, match="port=0 takes a free one"):
        Prometheus(port=plugin.port)
