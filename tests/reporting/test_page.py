"""The page: everything is on it, nothing comes from elsewhere, and nothing on it runs."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from emowatch.conformance import recorded_trace
from emowatch.conformance.company import HOSTILE, cut_trace, hostile_trace
from emowatch.default_plugins.jsonl_log import JsonlLog
from emowatch.reporting import render_page
from emowatch.trace import Trace
from tests.conftest import make_score, make_session, make_turn


class Page(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def cells(self) -> list[str]:
        """Give what each token's cell tells."""
        return [
            str(a["title"]) for tag, a in self.tags if tag == "span" and a.get("title") is not None
        ]


def test_every_reply_token_has_a_cell_and_every_label_a_line() -> None:
    """In the order of offsets, with its highest scores to read."""
    trace = recorded_trace()
    page = Page(render_page(trace))
    replies = [score for score in trace.tokens if score.offset is not None]
    assert len(page.cells()) == len(replies)
    first = replies[0]
    assert page.cells()[0].startswith(f"offset 0: {first.dominant} {max(first.scores.array):.2f}")
    lines = [a for tag, a in page.tags if tag == "path"]
    assert len(lines) == len(trace.turns) * len(trace.tokens.bank.labels)
    assert all(re.fullmatch(r"M[\d. ]+( L[\d. ]+)*", str(a["d"])) for a in lines)
    for alarm in trace.alarms:
        assert f"{alarm.level} at offset {alarm.offset}: {alarm.rule}" in page.text
    assert "steering from offset" in page.text
    assert trace.session.model in page.text


def test_the_other_bank_can_be_asked_for() -> None:
    """Its scores colour the page then."""
    trace = recorded_trace()
    first, second = trace.by_bank
    assert second in Page(render_page(trace, bank=second)).text
    assert Page(render_page(trace)).cells() != Page(render_page(trace, bank=second)).cells()
    assert Page(render_page(trace)).cells() == Page(render_page(trace, bank=first)).cells()


def test_text_stands_on_its_colours_where_the_trace_holds_it(tmp_path: Path) -> None:
    """Token by token, through a file."""
    pieces = ("I ", "am <b>", "so\n", "glad & well")
    log = JsonlLog(tmp_path / "t.jsonl", content="full")
    log.session_started(make_session())
    for offset in range(4):
        log.token_scored(make_score(offset=offset, position=9 + offset))
    log.turn_finished(make_turn(text="".join(pieces), pieces=pieces, token_ids=(1, 2, 3, 4)))
    log.session_finished()
    html = render_page(Trace.load(log.path))
    page = Page(html)
    assert "I am <b>so\nglad & well" in page.text
    assert "<b>so" not in html
    (first, *_) = [a for tag, a in page.tags if tag == "span" and a.get("title")]
    assert "color-mix(in srgb, #6F6600 41.25" in str(first["style"])  # joy, 0.75


def test_nothing_on_the_page_runs_or_comes_from_elsewhere() -> None:
    """It may be mailed, and opened from a disk."""
    html = render_page(recorded_trace())
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "form"}
    assert not re.search(r"https?:|url\(|@import|javascript:", html)
    for _, given in page.tags:
        assert not [name for name in given if name.startswith("on") or name in ("src", "href")]
    assert "default-src 'none'" in html


def test_hostile_names_and_text_are_shown_harmlessly() -> None:
    """Markup is text, and control characters are gone."""
    markup = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    trace = hostile_trace(recorded_trace())
    trace.session = replace(trace.session, model=markup + HOSTILE)
    trace.turns = [replace(t, pieces=(markup, HOSTILE) * 12, text=HOSTILE) for t in trace.turns]
    html = render_page(trace)
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert markup.split(">")[0] in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", html)
    html.encode("utf-8", "replace")


def test_a_session_cut_off_or_empty_says_so() -> None:
    """No half of a session looks whole."""
    cut = cut_trace(recorded_trace())
    page = Page(render_page(cut))
    assert "This trace has no end" in page.text
    assert "its end was never written" in page.text
    assert "Over the conversation" in Page(render_page(Trace(make_session()))).text


def test_a_bank_that_is_not_there_is_a_key_error() -> None:
    """The command says it in words."""
    with pytest.raises(KeyError):
        render_page(recorded_trace(), bank="x")
